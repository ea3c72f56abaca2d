package devstack

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	embedded "github.com/fergusstrange/embedded-postgres"
)

// fetchedPostgres is the version that is downloaded if no PostgreSQL is installed.
const fetchedPostgres = embedded.V17

// postgresPrograms returns the directory of the programs postgres and initdb: that in PATH, else the newest installed one, else
// a downloaded one.
func postgresPrograms(ctx context.Context, cache string, log *slog.Logger) (string, error) {
	if dir, ok := installedPostgres(); ok {
		return dir, nil
	}
	dir, err := cacheDir(cache)
	if err != nil {
		return "", err
	}
	dir, err = cached(ctx, dir, "postgres-"+string(fetchedPostgres), func(ctx context.Context, dir string) error {
		log.Info("PostgreSQL is not installed and is downloaded, once", "version", string(fetchedPostgres))
		return fetchPostgres(ctx, dir)
	})
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "bin"), nil
}

// installedPostgres returns the directory of installed programs.
func installedPostgres() (string, bool) {
	if path, err := exec.LookPath("postgres"); err == nil {
		// The program in PATH may be a link out of the directory of the programs.
		if real, err := filepath.EvalSymlinks(path); err == nil && exists(filepath.Join(filepath.Dir(real), "initdb")) {
			return filepath.Dir(real), true
		}
	}
	best, version := "", -1
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin", "/usr/local/pgsql/bin", "/opt/homebrew/opt/postgresql*/bin", "/usr/local/opt/postgresql*/bin"} {
		dirs, _ := filepath.Glob(pattern) // no error: the patterns are well formed
		for _, dir := range dirs {
			if v := majorIn(dir); v > version && exists(filepath.Join(dir, "postgres")) && exists(filepath.Join(dir, "initdb")) {
				best, version = dir, v
			}
		}
	}
	return best, best != ""
}

// majorIn returns the major version in the path of a program directory, or 0 if it has none.
func majorIn(dir string) int {
	name := filepath.Base(filepath.Dir(dir)) // "15", "postgresql@16", "pgsql"
	v, _ := strconv.Atoi(name[strings.LastIndexByte(name, '@')+1:])
	return v
}

// fetchPostgres downloads the programs into dir. The library can only start whole servers, and not as root. With a data
// directory that has nothing but a version file, it fails after it has unpacked the programs, which is all that is needed.
func fetchPostgres(ctx context.Context, dir string) error {
	port, err := choosePort(0, postgresBand)
	if err != nil {
		return err
	}
	work := dir + ".work"
	defer os.RemoveAll(work)
	data := filepath.Join(work, "data")
	if err := os.MkdirAll(data, 0o755); err != nil {
		return fmt.Errorf("fetch PostgreSQL: %w", err)
	}
	major, _, _ := strings.Cut(string(fetchedPostgres), ".")
	if err := os.WriteFile(filepath.Join(data, "PG_VERSION"), []byte(major+"\n"), 0o600); err != nil {
		return fmt.Errorf("fetch PostgreSQL: %w", err)
	}
	if err := ctx.Err(); err != nil { // the library takes no context
		return err
	}
	err = embedded.NewDatabase(embedded.DefaultConfig().
		Version(fetchedPostgres).
		Port(uint32(port)).
		CachePath(filepath.Join(work, "archive")).
		RuntimePath(filepath.Join(work, "run")).
		DataPath(data).
		BinariesPath(dir).
		Logger(io.Discard)).Start()
	if !exists(filepath.Join(dir, "bin", "postgres")) {
		return fmt.Errorf("fetch PostgreSQL %s (none is installed): %w", fetchedPostgres, err)
	}
	return nil
}
