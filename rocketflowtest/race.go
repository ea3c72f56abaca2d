package rocketflowtest

import (
	"crypto/sha256"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// raceOptions is the environment variable that the race detector reads its options from, when the process starts.
const raceOptions = "GORACE"

const raceHint = `rocketflowtest: the RocketMQ client has data races of its own, which the race detector would report. Suppress them, and nothing else, by a TestMain in this package:

	func TestMain(m *testing.M) {
		rocketflowtest.SuppressClientRaces()
		m.Run()
	}`

//go:embed race.supp
var suppressions []byte

// SuppressClientRaces prevents the race detector from reporting the data races inside rocketmq-client-go. Call it first in
// TestMain. Without the race detector it does nothing.
//
// A race is suppressed if one of its two accesses is made by the client's own code. Races between your handlers, your
// tests and rocketflow are reported as ever, also where the client has called them.
//
// The race detector reads the list of suppressions only when a process starts. So the first call writes the list to the
// user's cache directory and replaces the process by the same program with the same arguments, where GORACE names the list.
// Where GORACE names a list already, the call does nothing.
func SuppressClientRaces() {
	if !raceEnabled || suppressesRaces(os.Getenv(raceOptions)) {
		return
	}
	err := restartSuppressed()
	fmt.Fprintf(os.Stderr, "rocketflowtest: suppress the RocketMQ client's data races: %v\n", err)
	os.Exit(1)
}

// restartSuppressed replaces the process. It returns only if that fails.
func restartSuppressed() error {
	list, err := writeSuppressions()
	if err != nil {
		return err
	}
	options := strings.TrimSpace(os.Getenv(raceOptions) + " suppressions=" + list)
	if err := os.Setenv(raceOptions, options); err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	return fmt.Errorf("restart %s: %w", program, syscall.Exec(program, os.Args, os.Environ()))
}

// writeSuppressions writes the list to a file whose name depends on its content, and returns the name. The file stays: the
// test's child processes read it, too.
func writeSuppressions() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	dir := filepath.Join(cache, "rocketflow")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	file := filepath.Join(dir, fmt.Sprintf("race-%x.supp", sha256.Sum256(suppressions)))
	if strings.ContainsAny(file, " \t\n") {
		return "", fmt.Errorf("%s: the race detector reads no file with a space in its name: set XDG_CACHE_HOME", file)
	}
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	part, err := os.CreateTemp(dir, "race-*")
	if err != nil {
		return "", err
	}
	_, err = part.Write(suppressions)
	if closed := part.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(part.Name(), file) // whole or not at all: processes may start at the same time
	}
	if err != nil {
		_ = os.Remove(part.Name())
		return "", err
	}
	return file, nil
}

// suppressesRaces reports whether the race detector's options name a list of suppressions.
func suppressesRaces(options string) bool { return strings.Contains(options, "suppressions=") }
