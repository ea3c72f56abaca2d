package devstack

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// These change the environment, so none of them is parallel.

func TestJavaIsMissing(t *testing.T) {
	withoutPrograms(t)
	_, err := StartRocketMQ(context.Background(), RocketMQConfig{})
	wantError(t, err, "Java 17 or newer", "none was found")
}

func TestJavaIsTooOld(t *testing.T) {
	bin := withoutPrograms(t)
	script(t, filepath.Join(bin, "java"), `echo 'openjdk version "1.8.0_392"' >&2`)
	_, err := StartRocketMQ(context.Background(), RocketMQConfig{})
	wantError(t, err, "Java 17 or newer", filepath.Join(bin, "java")+" is Java 8")
}

func TestOlderJavaIsSkipped(t *testing.T) {
	bin := withoutPrograms(t)
	script(t, filepath.Join(bin, "java"), `echo 'openjdk version "11.0.2" 2019-01-15' >&2`)
	home := t.TempDir()
	installedJavas = []string{home + "/*/bin/java"}
	script(t, filepath.Join(home, "jdk", "bin", "java"), `echo 'openjdk version "21" 2023-09-19' >&2`)
	if got, err := findJava(context.Background()); err != nil || got != filepath.Join(home, "jdk", "bin", "java") {
		t.Errorf("got %s, %v", got, err)
	}
}

func TestMavenIsMissing(t *testing.T) {
	bin := withoutPrograms(t)
	_, err := rocketmqJars(context.Background(), t.TempDir(), filepath.Join(bin, "java"), slog.New(slog.DiscardHandler), RocketMQVersion, brokerArtifacts...)
	wantError(t, err, "Maven (mvn) is not in PATH")
}

func TestMavenFails(t *testing.T) {
	bin := withoutPrograms(t)
	script(t, filepath.Join(bin, "mvn"), "echo no such host; exit 1")
	cache := t.TempDir()
	_, err := rocketmqJars(context.Background(), cache, filepath.Join(bin, "java"), slog.New(slog.DiscardHandler), RocketMQVersion, brokerArtifacts...)
	wantError(t, err, "fetch RocketMQ", "no such host")
	if exists(filepath.Join(cache, "rocketmq-"+RocketMQVersion)) {
		t.Error("a failed download is in the cache")
	}
}

func TestMavenDownloadsOnce(t *testing.T) {
	bin := withoutPrograms(t)
	script(t, filepath.Join(bin, "mvn"), `for a; do case $a in -DoutputDirectory=*) d=${a#*=};; esac; done
/bin/mkdir -p "$d" && : > "$d/rocketmq-broker-0.jar" && : > "$d/rocketmq-namesrv-0.jar" && : > "$d/rocketmq-tools-0.jar"`)
	cache := t.TempDir()
	for range 2 {
		dir, err := rocketmqJars(context.Background(), cache, filepath.Join(bin, "java"), slog.New(slog.DiscardHandler), RocketMQVersion, brokerArtifacts...)
		if err != nil || !exists(filepath.Join(dir, "rocketmq-broker-0.jar")) {
			t.Fatalf("got %s, %v", dir, err)
		}
		os.Remove(filepath.Join(bin, "mvn")) // not needed again
	}
}

func TestDiskIsFull(t *testing.T) {
	const gib = 1 << 30
	wantError(t, checkUsage("/data", 10*gib, gib), "/data", "1024 MiB free")
	wantError(t, checkUsage("/data", 91*gib, 9*gib), "/data", "91 % full")
	if err := checkUsage("/data", 50*gib, 50*gib); err != nil {
		t.Error(err)
	}
}

// withoutPrograms makes an empty directory the only place where programs are found.
func withoutPrograms(t *testing.T) string {
	bin := t.TempDir()
	t.Setenv("PATH", bin)
	t.Setenv("JAVA_HOME", "")
	before := installedJavas
	installedJavas = nil
	t.Cleanup(func() { installedJavas = before })
	return bin
}

func script(t *testing.T, path, body string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q lacks %q", err, part)
		}
	}
}

func TestAPostgresVersionIsNamedAsItsReleaseIs(t *testing.T) {
	for version, want := range map[string]string{"14.19": "14.19.0", "18.0.0": "18.0.0", "17": "", "../17.6": "", "9.6": "", "17.6 ": "", "": ""} {
		got, err := postgresRelease(version)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v; want %q", version, got, err, want)
		}
	}
}
