package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// This file is about flags that cannot be taken: what is said names the flag and what would be right.

// fromEnvironment sets the flags that the command line leaves out: --dial-timeout is ETCDCTL_DIAL_TIMEOUT.
func fromEnvironment(fs *pflag.FlagSet) (err error) {
	fs.VisitAll(func(f *pflag.Flag) {
		name := "ETCDCTL_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value := os.Getenv(name)
		if f.Changed || value == "" || err != nil {
			return
		}
		if serr := fs.Set(f.Name, value); serr != nil {
			err = failed("%s=%q in the environment: %s", name, value, right(f, value, serr))
		}
	})
	return err
}

// flagError is what pflag says of a flag, and what would be right. pflag tells in words alone which flag it was.
func flagError(cmd *cobra.Command, err error) error {
	if errors.Is(err, pflag.ErrHelp) {
		return err
	}
	text := err.Error()
	if name, ok := strings.CutPrefix(text, "unknown flag: --"); ok {
		if near := nearest(cmd, name); near != "" {
			return failed("no flag --%s: did you mean --%s?", name, near)
		}
		return failed("no flag --%s: %s --help lists them", name, cmd.CommandPath())
	}
	var found *pflag.Flag
	value := ""
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		v, rest, ok := strings.Cut(strings.TrimPrefix(text, "invalid argument "), " for ")
		if ok && strings.Contains(rest, "--"+f.Name+`"`) {
			found, value = f, strings.Trim(v, `"`)
		}
	})
	if found != nil {
		return failed("--%s %q: %s", found.Name, value, right(found, value, err))
	}
	if strings.HasPrefix(text, "unknown shorthand") && strings.Contains(cmd.Use, " -- ") {
		text += ": put -- before the command, so that its flags are its own"
	}
	return failed("%s: %s --help tells more", text, cmd.CommandPath())
}

// right is what would be right for a value that a flag did not take.
func right(f *pflag.Flag, value string, err error) string {
	switch f.Value.Type() {
	case "duration":
		if value != "" && strings.Trim(value, "0123456789") == "" {
			return fmt.Sprintf("a duration needs a unit, such as %ss or %sm", value, value)
		}
		return "it takes a duration, such as 500ms, 30s or 5m"
	case "bool":
		return "it takes true or false"
	case "uint8":
		return "an exit code is a number from 0 to 255"
	case "int", "int64":
		return "it takes a whole number"
	}
	if _, why, ok := strings.Cut(err.Error(), " flag: "); ok {
		return why
	}
	return err.Error()
}

// nearest is the flag of cmd that name was most likely meant to be, "" if none is like it.
func nearest(cmd *cobra.Command, name string) string {
	best, least := "", 3 // letters to change
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		d := changes(name, f.Name)
		if len(name) > 2 && strings.HasPrefix(f.Name, name) {
			d = 1
		}
		if d < least {
			best, least = f.Name, d
		}
	})
	return best
}

// changes is the number of letters to put in, take out or replace between two words (Levenshtein's distance).
func changes(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := before
			if a[i] != b[j] {
				d = 1 + min(before, row[j], row[j+1])
			}
			before, row[j+1] = row[j+1], d
		}
	}
	return row[len(b)]
}
