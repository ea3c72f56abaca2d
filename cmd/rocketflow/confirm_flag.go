package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/operate"
)

// errDeclined ends a command with exitFailure and no message: the user has just answered no.
var errDeclined = &statusError{exitFailure}

// confirmFlag is --yes: it answers the question that a command asks before it destroys something.
type confirmFlag struct{ yes bool }

func (f *confirmFlag) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.yes, "yes", false, "don't ask for confirmation; required where there is no terminal")
}

// possible returns an error where neither --yes nor a terminal can confirm. why says what the command would destroy.
func (f *confirmFlag) possible(cmd *cobra.Command, why string) error {
	if !f.yes && !isTerminal(cmd.InOrStdin()) {
		return usagef("%s: confirm with --yes", why)
	}
	return nil
}

// confirm asks the user, unless --yes is set.
func (f *confirmFlag) confirm(cmd *cobra.Command, question string) error {
	if f.yes || ask(cmd.InOrStdin(), cmd.ErrOrStderr(), question) {
		return nil
	}
	fmt.Fprintln(cmd.ErrOrStderr(), "nothing was changed")
	return errDeclined
}

// discard asks whether the n things that a list with a limit found may be discarded, and returns the limit of what may be: not more than
// the question named. A list without a limit, 0, ends at operate.DefaultLimit; the question then says that there may be more.
func (f *confirmFlag) discard(cmd *cobra.Command, n int, thing string, limit int) (int, error) {
	many := plural(n, thing)
	if limit == 0 && n == operate.DefaultLimit {
		many += " or more"
	} else {
		limit = n
	}
	return limit, f.confirm(cmd, "discard "+many+" without their effect?")
}

// ask asks a question and reports whether the answer is yes.
func ask(in io.Reader, out io.Writer, question string) bool {
	fmt.Fprintf(out, "%s [y/N] ", question)
	answer, _ := bufio.NewReader(in).ReadString('\n') // no answer is a no
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return true
	}
	return false
}

// isTerminal reports whether in is a character device other than the null device.
func isTerminal(in io.Reader) bool {
	file, ok := in.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}
