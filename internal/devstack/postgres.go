package devstack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// PostgresConfig configures a PostgreSQL server. The zero value is ready to use.
type PostgresConfig struct {
	// Dir is the directory of data and log.
	// Defaults to a temporary directory, which Stop removes.
	Dir string
	// Port is a port of 127.0.0.1.
	// Defaults to a free port.
	Port int
	// Version is the version of the programs, such as "14.19", which is downloaded once.
	// Defaults to the installed version, or to a downloaded one if none is installed.
	Version string
	// NoFsync makes the server faster, but a crash of the machine may corrupt its data. A temporary directory is then in memory, where there
	// is room. For tests.
	NoFsync bool
	// Settings are server parameters that replace those of this package.
	Settings map[string]string
	// CacheDir is the directory of the downloaded programs, if none are installed.
	// Defaults to a directory in the user's cache.
	CacheDir string
	// Logger receives what is started and downloaded.
	// Defaults to a logger that discards everything.
	Logger *slog.Logger
}

// Postgres is a running PostgreSQL server. Its methods must not be called concurrently.
type Postgres struct {
	dir      *directory
	port     int
	programs string
	settings map[string]string
	server   *process
}

// StartPostgres starts a server and returns when it accepts connections. ctx bounds the start only.
func StartPostgres(ctx context.Context, config PostgresConfig) (*Postgres, error) {
	log := cmp.Or(config.Logger, slog.New(slog.DiscardHandler))
	p := &Postgres{}
	var err error
	if p.port, err = choosePort(config.Port, postgresBand); err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	if p.programs, err = postgresPrograms(ctx, config.Version, config.CacheDir, log); err != nil {
		return nil, err
	}
	parent := ""
	if config.NoFsync {
		parent = inMemory()
	}
	if p.dir, err = openDirectory(config.Dir, parent, false); err != nil {
		return nil, err
	}
	p.settings = map[string]string{
		"listen_addresses":        "127.0.0.1",
		"port":                    strconv.Itoa(p.port),
		"unix_socket_directories": socketDirectory(p.data(), p.port),
		"max_connections":         "600",
		"logging_collector":       "off", // the server must log to our file, whatever the packager configured
	}
	if config.NoFsync {
		maps.Copy(p.settings, map[string]string{"fsync": "off", "full_page_writes": "off"})
	}
	maps.Copy(p.settings, config.Settings)

	if err := p.initialise(ctx); err != nil {
		return nil, errors.Join(err, p.dir.close())
	}
	if err := p.Restart(ctx); err != nil {
		return nil, errors.Join(err, p.dir.close())
	}
	log.Info("PostgreSQL started", "address", address(p.port), "programs", p.programs, "dir", p.dir.path)
	return p, nil
}

// URL returns a connection string for the superuser.
func (p *Postgres) URL() string {
	return fmt.Sprintf("postgres://postgres@%s/postgres?sslmode=disable", address(p.port))
}

// Dir returns the directory of data and log.
func (p *Postgres) Dir() string { return p.dir.path }

// Restart starts the server on the same port and data, after Kill or, with a shutdown first, while it runs. It ends all
// connections.
func (p *Postgres) Restart(ctx context.Context) error {
	if p.server != nil {
		if err := p.server.stop(ctx, syscall.SIGINT); err != nil {
			return err
		}
	}
	if err := p.clearStale(ctx); err != nil {
		return err
	}
	args := []string{"-D", p.data()}
	for _, name := range slices.Sorted(maps.Keys(p.settings)) {
		args = append(args, "-c", name+"="+p.settings[name])
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		err := p.start(ctx, args)
		if err == nil || !strings.Contains(err.Error(), orphanInUse) || time.Now().After(deadline) {
			return err
		}
	}
}

// orphanInUse is the message of PostgreSQL while a child process of a killed server still runs. The child ends once it notices
// the death of its parent.
const orphanInUse = "pre-existing shared memory block"

// start starts the server once and waits until it accepts connections.
func (p *Postgres) start(ctx context.Context, args []string) error {
	server, err := startProcess("PostgreSQL", p.command("postgres", args...), p.dir.sub("postgres.log"), syscall.SIGINT)
	if err != nil {
		return err
	}
	p.server = server
	if err := server.await(ctx, p.ping); err != nil {
		server.kill()
		return err
	}
	return nil
}

// Kill kills the server and its child processes with SIGKILL.
func (p *Postgres) Kill() { p.server.kill() }

// Pause freezes the server and its child processes with SIGSTOP: connections stay open and requests get no response. New
// connections are still accepted, by the kernel.
func (p *Postgres) Pause() error { return p.server.signal(syscall.SIGSTOP) }

// Continue ends a Pause.
func (p *Postgres) Continue() error { return p.server.signal(syscall.SIGCONT) }

// Stop shuts the server down without waiting for its clients, and removes a temporary directory. A server that still runs when
// ctx ends is killed. Further calls do nothing.
func (p *Postgres) Stop(ctx context.Context) error {
	_ = p.Continue() // a paused server could not end; an error means that it has ended
	return errors.Join(p.server.stop(ctx, syscall.SIGINT), p.dir.close())
}

// data is the data directory.
func (p *Postgres) data() string { return p.dir.sub("data") }

// ping returns nil if the server accepts connections.
func (p *Postgres) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.URL())
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

// command returns a command that runs one of the programs as the owner of the data.
func (p *Postgres) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(p.programs, program), args...)
	cmd.Dir = p.dir.path
	cmd.Env = append(os.Environ(), "LC_ALL=C", "HOME="+p.dir.path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.dir.owner}
	return cmd
}

// initialise creates the data directory, unless it exists. The directory gets its name only when it is complete.
func (p *Postgres) initialise(ctx context.Context) error {
	if exists(p.data()) {
		return nil
	}
	part := p.data() + ".part"
	if err := os.RemoveAll(part); err != nil {
		return fmt.Errorf("initialise PostgreSQL: %w", err)
	}
	if err := os.Mkdir(part, 0o700); err != nil {
		return fmt.Errorf("initialise PostgreSQL: %w", err)
	}
	if err := p.dir.chown(part); err != nil {
		return fmt.Errorf("initialise PostgreSQL: %w", err)
	}
	args := []string{"-D", part, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"}
	if p.settings["fsync"] == "off" {
		args = append(args, "--no-sync")
	}
	if out, err := p.command("initdb", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("initialise PostgreSQL in %s: %w%s", p.dir.path, err, lastLines(out))
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("initialise PostgreSQL: %w", err)
	}
	if err := os.Rename(part, p.data()); err != nil {
		return fmt.Errorf("initialise PostgreSQL: %w", err)
	}
	return nil
}

// clearStale removes the lock file of a server that was killed. With it the next server would not start if another program has
// the process id now. If the server still runs, because its parent has just died, clearStale waits for its end.
func (p *Postgres) clearStale(ctx context.Context) error {
	file := filepath.Join(p.data(), "postmaster.pid")
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(5 * time.Second); ; {
		b, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read lock file of PostgreSQL: %w", err)
		}
		first, _, _ := strings.Cut(string(b), "\n")
		pid, err := strconv.Atoi(strings.TrimSpace(first))
		if err != nil || pid <= 0 || !worksIn(pid, p.data()) {
			if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("remove lock file of PostgreSQL: %w", err)
			}
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("data directory %s is in use by another PostgreSQL, process %d", p.data(), pid)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// socketDirectory returns the data directory, or "" if its path is too long for the address of a socket.
func socketDirectory(data string, port int) string {
	const maxLength = 103 // the smallest limit of the supported systems
	if len(fmt.Sprintf("%s/.s.PGSQL.%d", data, port)) > maxLength {
		return ""
	}
	return data
}
