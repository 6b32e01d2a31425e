//go:build unix

package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// command is what runs under the first lock: it does not obey, and has a pipe open for as long as it lives.
func command(path string) {
	signal.Ignore(syscall.SIGTERM)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		os.Exit(1)
	}
	fmt.Fprintln(f, 0)
	end := time.After(5 * time.Minute) // should nobody kill it
	<-end
	os.Exit(1)
}

// next is what runs under the lock of who waited: it says when it began, by its own clock.
func next(path string) {
	began := time.Now()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		os.Exit(1)
	}
	fmt.Fprintln(f, began.UnixNano())
	os.Exit(0)
}
