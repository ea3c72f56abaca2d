package devstack

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// cacheDir returns the directory of downloaded programs: dir if given, else one in the user's cache. Root uses a system
// directory, because the user that PostgreSQL then runs as can't read root's cache.
func cacheDir(dir string) (string, error) {
	switch {
	case dir != "":
	case os.Geteuid() == 0:
		dir = "/var/cache/rocketflow"
	default:
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("find cache directory: %w", err)
		}
		dir = filepath.Join(user, "rocketflow")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("create cache directory: %w", err)
	}
	return filepath.Abs(dir)
}

// cached returns a directory in the cache. If it is missing, fetch fills it, in one process at a time. The directory appears
// under its name only when it is complete.
func cached(ctx context.Context, cache, name string, fetch func(ctx context.Context, dir string) error) (string, error) {
	dir := filepath.Join(cache, name)
	if exists(dir) {
		return dir, nil
	}
	lock, err := waitLock(ctx, dir+".lock")
	if err != nil {
		return "", fmt.Errorf("lock cache: %w", err)
	}
	defer lock.Close()
	if exists(dir) { // another process has filled it meanwhile
		return dir, nil
	}
	part := dir + ".part"
	if err := os.RemoveAll(part); err != nil {
		return "", fmt.Errorf("clear cache: %w", err)
	}
	defer os.RemoveAll(part)
	if err := os.MkdirAll(part, 0o755); err != nil {
		return "", fmt.Errorf("make cache directory: %w", err)
	}
	if err := fetch(ctx, part); err != nil {
		return "", err
	}
	if err := os.Rename(part, dir); err != nil {
		return "", fmt.Errorf("fill cache: %w", err)
	}
	return dir, nil
}

// exists reports whether there is a file or directory.
func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
