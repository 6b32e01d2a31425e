//go:build !unix

package main

import (
	"errors"
	"fmt"
	"runtime"
)

var errNoFreeze = fmt.Errorf("a process is frozen with SIGSTOP, which %s does not have (the library itself works there): %w",
	runtime.GOOS, errors.ErrUnsupported)

// canFreeze is asked first: better no demonstration than one without its point.
func canFreeze() error { return errNoFreeze }

func freeze(*process) error { return errNoFreeze }

func thaw(*process) error { return errNoFreeze }
