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

// PostgresConfig describes a Postgres server. The zero value is a good one.
type PostgresConfig struct {
	// Dir keeps the data. Default: a temporary directory, removed by Stop.
	Dir string
	// Port on 127.0.0.1. Default: a free one.
	Port int
	// Version of the programs, such as "14.19", which is fetched once. Empty means the installed version, or a fetched one
	// where none is installed.
	Version string
	// NoFsync makes the server forget its data when the machine crashes, and faster. For tests.
	NoFsync bool
	// Settings are server parameters, over those that we set.
	Settings map[string]string
	// CacheDir keeps the programs, if they have to be fetched. Default: a directory in the user's cache.
	CacheDir string
	// Logger. Default: discard.
	Logger *slog.Logger
}

// Postgres is a running Postgres server. Its methods must not be called concurrently with each other.
type Postgres struct {
	dir      *directory
	port     int
	programs string
	settings map[string]string
	server   *process
}

// StartPostgres returns when the server takes connections. ctx bounds only the start.
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
	if p.dir, err = openDirectory(config.Dir, false); err != nil {
		return nil, err
	}
	p.settings = map[string]string{
		"listen_addresses":        "127.0.0.1",
		"port":                    strconv.Itoa(p.port),
		"unix_socket_directories": socketDirectory(p.data(), p.port),
		"max_connections":         "600",
		"logging_collector":       "off", // to our log file, whatever the packager configured
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
	log.Info("PostgreSQL runs", "address", address(p.port), "programs", p.programs, "dir", p.dir.path)
	return p, nil
}

// URL connects to the server as its superuser.
func (p *Postgres) URL() string {
	return fmt.Sprintf("postgres://postgres@%s/postgres?sslmode=disable", address(p.port))
}

// Dir holds data and log.
func (p *Postgres) Dir() string { return p.dir.path }

// Restart starts the server on the same port and data, after Kill as well as while it runs: then it is shut down
// first, which ends its connections.
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

// orphanInUse is what PostgreSQL says while a child lives that a killed server started at its last moment. It ends when it
// finds its parent gone.
const orphanInUse = "pre-existing shared memory block"

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

// Kill ends the server and all its connections with SIGKILL.
func (p *Postgres) Kill() { p.server.kill() }

// Pause stops the server and its connections where they are, as on a frozen machine: nothing is answered, nothing
// closed. Connections can still be opened, as the kernel does that.
func (p *Postgres) Pause() error { return p.server.signal(syscall.SIGSTOP) }

// Continue ends a Pause.
func (p *Postgres) Continue() error { return p.server.signal(syscall.SIGCONT) }

// Stop shuts the server down without waiting for its clients, and removes a temporary directory. If it still runs when
// ctx ends it is killed. Only the first call does anything.
func (p *Postgres) Stop(ctx context.Context) error {
	_ = p.Continue() // else it could not end; fails if it has
	return errors.Join(p.server.stop(ctx, syscall.SIGINT), p.dir.close())
}

func (p *Postgres) data() string { return p.dir.sub("data") }

func (p *Postgres) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.URL())
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

// command runs one of the programs as the owner of the data.
func (p *Postgres) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(p.programs, program), args...)
	cmd.Dir = p.dir.path
	cmd.Env = append(os.Environ(), "LC_ALL=C", "HOME="+p.dir.path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.dir.owner}
	return cmd
}

// initialise makes the data, unless they are there. They are complete once the directory has its name.
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
	if err := p.dir.own(part); err != nil {
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

// clearStale removes the lock file of a server that was killed, which else keeps the next from starting if its process
// id is another program's by now. A server that still runs, such as one whose parent has just died, gets a moment.
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

// socketDirectory is the data directory, or nowhere if its path is too long for the address of a socket.
func socketDirectory(data string, port int) string {
	const longest = 103 // the least of the systems we know
	if len(fmt.Sprintf("%s/.s.PGSQL.%d", data, port)) > longest {
		return ""
	}
	return data
}
