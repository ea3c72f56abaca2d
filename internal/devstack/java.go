package devstack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
)

// javaNeeded is the oldest version of Java that the options of RocketMQ's JVM work with.
const javaNeeded = 17

var javaVersion = regexp.MustCompile(`version "(?:1\.)?(\d+)`)

// findJava returns the first Java of at least javaNeeded: that of JAVA_HOME, that of PATH, then the installed ones in the order
// of their paths.
func findJava(ctx context.Context) (string, error) {
	var tooOld []string
	for _, path := range javaCandidates() {
		major, err := majorOfJava(ctx, path)
		switch {
		case err != nil:
			continue
		case major >= javaNeeded:
			return path, nil
		}
		tooOld = append(tooOld, fmt.Sprintf("%s is Java %d", path, major))
	}
	if len(tooOld) > 0 {
		return "", fmt.Errorf("Java %d or newer is needed, and %s: install one, or set JAVA_HOME", javaNeeded, tooOld[0])
	}
	return "", fmt.Errorf("Java %d or newer is needed, and none was found in JAVA_HOME, PATH or /usr/lib/jvm: install one, or set JAVA_HOME", javaNeeded)
}

// javaCandidates returns the java programs on this machine, without duplicates.
func javaCandidates() []string {
	var list []string
	add := func(path string) {
		if exists(path) && !slices.Contains(list, path) {
			list = append(list, path)
		}
	}
	if home := os.Getenv("JAVA_HOME"); home != "" {
		add(filepath.Join(home, "bin", "java"))
	}
	if path, err := exec.LookPath("java"); err == nil {
		add(path)
	}
	for _, pattern := range installedJavas {
		paths, _ := filepath.Glob(pattern) // sorted; no error: the patterns are well formed
		for _, path := range paths {
			add(path)
		}
	}
	return list
}

// installedJavas are the paths at which packages install Java.
var installedJavas = []string{
	"/usr/lib/jvm/*/bin/java",
	"/Library/Java/JavaVirtualMachines/*/Contents/Home/bin/java",
	"/opt/homebrew/opt/openjdk*/bin/java",
	"/usr/local/opt/openjdk*/bin/java",
}

// majorOfJava returns the major version of a java program.
func majorOfJava(ctx context.Context, path string) (int, error) {
	out, err := exec.CommandContext(ctx, path, "-version").CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("%s -version: %w", path, err)
	}
	m := javaVersion.FindSubmatch(out)
	if m == nil {
		return 0, errors.New(path + " -version prints no version")
	}
	return strconv.Atoi(string(m[1]))
}
