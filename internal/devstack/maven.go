package devstack

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// BuildMaven builds the Maven project in a directory and returns a Java and the class path of the project with its dependencies. The
// project's pom has to take the directory for what is built from the property "output". What was built before from equal files is
// returned again, without Maven.
func BuildMaven(ctx context.Context, project string) (java, classPath string, err error) {
	if java, err = findJava(ctx); err != nil {
		return "", "", err
	}
	sum, err := sumOf(project)
	if err != nil {
		return "", "", fmt.Errorf("read Maven project: %w", err)
	}
	cache, err := cacheDir("")
	if err != nil {
		return "", "", err
	}
	dir, err := cached(ctx, cache, fmt.Sprintf("maven-%x", sum[:8]), func(ctx context.Context, dir string) error {
		return buildMaven(ctx, project, dir, java)
	})
	if err != nil {
		return "", "", err
	}
	return java, filepath.Join(dir, "classes") + string(os.PathListSeparator) + filepath.Join(dir, "dependency", "*"), nil
}

// buildMaven compiles a project and copies its dependencies into the directory dir.
func buildMaven(ctx context.Context, project, dir, java string) error {
	mvn, err := exec.LookPath("mvn")
	if err != nil {
		return errors.New("a Maven project has to be built, and Maven (mvn) is not in PATH: install it")
	}
	cmd := exec.CommandContext(ctx, mvn, "--batch-mode", "--quiet", "-Doutput="+dir, "compile", "dependency:copy-dependencies", "-DincludeScope=runtime")
	cmd.Dir = project
	cmd.WaitDelay = 5 * time.Second
	cmd.Env = append(os.Environ(), "JAVA_HOME="+javaHome(java))
	out, err := cmd.CombinedOutput()
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("build Maven project: %w%s", err, lastLines(out))
	}
	return nil
}

// sumOf returns a checksum of the names and contents of all files below a directory.
func sumOf(dir string) ([]byte, error) {
	var files []string
	root := os.DirFS(dir)
	err := fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	h := sha256.New()
	for _, path := range files {
		content, err := fs.ReadFile(root, path)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(h, "%s\x00%d\x00", path, len(content))
		h.Write(content)
	}
	return h.Sum(nil), nil
}
