package devstack

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	embedded "github.com/fergusstrange/embedded-postgres"
)

// defaultFetchedPostgres is the version that is fetched where no PostgreSQL is installed and none was chosen.
const defaultFetchedPostgres = string(embedded.V17)

// postgresPrograms returns the directory of the programs postgres and initdb. Without a version these are the ones in
// PATH, else the newest installed, else fetched ones of defaultFetchedPostgres. A version, such as "14.19", is always
// fetched, into the cache.
func postgresPrograms(ctx context.Context, version, cache string, log *slog.Logger) (string, error) {
	if version == "" {
		if dir, ok := installedPostgres(); ok {
			return dir, nil
		}
		version = defaultFetchedPostgres
	}
	version, err := postgresRelease(version)
	if err != nil {
		return "", err
	}
	dir, err := cacheDir(cache)
	if err != nil {
		return "", err
	}
	dir, err = cached(ctx, dir, "postgres-"+version, func(ctx context.Context, dir string) error {
		log.Info("fetching PostgreSQL, once", "version", version, "dir", dir)
		return fetchPostgres(ctx, version, dir)
	})
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "bin"), nil
}

// postgresVersion is a version as PostgreSQL or the published binaries name it: "14.19" or "14.19.0".
var postgresVersion = regexp.MustCompile(`^[1-9][0-9]\.[0-9]+(\.[0-9]+)?$`)

// postgresRelease returns the version as the published binaries name it, with a third number.
func postgresRelease(version string) (string, error) {
	if !postgresVersion.MatchString(version) {
		return "", fmt.Errorf("PostgreSQL version %q: want one such as 17.6", version)
	}
	if strings.Count(version, ".") == 1 {
		version += ".0"
	}
	return version, nil
}

// installedPostgres returns the directory of an installed PostgreSQL's programs.
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

// fetchPostgres puts the programs of a release into dir. They come from Maven Central. The library only starts whole servers, and never as
// root; a data directory that holds nothing but a version makes it fail right after it has unpacked the programs.
func fetchPostgres(ctx context.Context, version, dir string) error {
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
	major, _, _ := strings.Cut(version, ".")
	if err := os.WriteFile(filepath.Join(data, "PG_VERSION"), []byte(major+"\n"), 0o600); err != nil {
		return fmt.Errorf("fetch PostgreSQL: %w", err)
	}
	if err := ctx.Err(); err != nil { // the library takes no context
		return err
	}
	err = embedded.NewDatabase(embedded.DefaultConfig().
		Version(embedded.PostgresVersion(version)).
		Port(uint32(port)).
		CachePath(filepath.Join(work, "archive")).
		RuntimePath(filepath.Join(work, "run")).
		DataPath(data).
		BinariesPath(dir).
		Logger(io.Discard)).Start()
	if !exists(filepath.Join(dir, "bin", "postgres")) {
		return fmt.Errorf("fetch PostgreSQL %s: %w", version, err)
	}
	return nil
}
