//go:build !linux

package main

import "os/exec"

// dieWithParent can do nothing here. A child still ends with its parent, since
// its standard input does, unless it is stopped at that moment.
func dieWithParent(*exec.Cmd) {}
