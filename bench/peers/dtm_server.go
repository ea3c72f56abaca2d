package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow/bench/frame"
)

// dtmServer is a dtm server in a process of its own, with PostgreSQL as its store, so that its messages survive its end, like
// those of the other ways.
type dtmServer struct {
	dir     string // holds the configuration and the log
	program string
	sqls    string // folder with the tables, of the module
	process *exec.Cmd
	port    int // of gRPC
}

// build builds the server with the versions of its own module, or finds it in Go's cache.
func (s *dtmServer) build(ctx context.Context) (err error) {
	if s.dir, err = os.MkdirTemp("", "bench-dtm-"); err != nil {
		return err
	}
	tool := exec.CommandContext(ctx, "go", "tool", "-C", "dtmserver", "-n", "dtm")
	tool.Stderr = os.Stderr
	program, err := tool.Output()
	if err != nil {
		return fmt.Errorf("build server: %w", err)
	}
	s.program = strings.TrimSpace(string(program))
	module, err := exec.CommandContext(ctx, "go", "list", "-C", "dtmserver", "-m", "-f", "{{.Dir}}", "github.com/dtm-labs/dtm").Output()
	if err != nil {
		return fmt.Errorf("find server's module: %w", err)
	}
	s.sqls = filepath.Join(strings.TrimSpace(string(module)), "sqls")
	return nil
}

// start creates the tables in the bed's schema and starts the server, unless it runs.
func (s *dtmServer) start(ctx context.Context, b *frame.Bed) error {
	if s.process != nil {
		return nil
	}
	for file, replace := range map[string]string{"dtmsvr.storage.postgres.sql": "", "dtmcli.barrier.postgres.sql": "dtm_barrier"} {
		raw, err := os.ReadFile(filepath.Join(s.sqls, file)) //nolint:gosec // G304: a module's file
		if err != nil {
			return err
		}
		sql := string(raw)
		if replace != "" {
			sql = strings.ReplaceAll(sql, replace, b.Schema)
		}
		conn, err := b.Pool.Acquire(ctx)
		if err != nil {
			return err
		}
		_, err = conn.Conn().PgConn().Exec(ctx, sql).ReadAll()
		conn.Release()
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	ports, err := freePorts(3)
	if err != nil {
		return err
	}
	s.port = ports[1]
	file := filepath.Join(s.dir, "dtm.yml")
	if err := os.WriteFile(file, []byte(s.configuration(b, ports)), 0o600); err != nil {
		return err
	}
	s.process = exec.Command(s.program, "-c", file) //nolint:gosec // G204: what was built above
	s.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := os.Create(filepath.Join(s.dir, "dtm.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	s.process.Stdout, s.process.Stderr = log, log
	if err := s.process.Start(); err != nil {
		return err
	}
	for range 100 {
		if conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.port)); err == nil {
			return conn.Close()
		}
		time.Sleep(100 * time.Millisecond)
	}
	said, _ := os.ReadFile(log.Name())
	return fmt.Errorf("server does not answer: %s", said)
}

// configuration is dtm's default without its log of each step, which must not be measured.
func (s *dtmServer) configuration(b *frame.Bed, ports []int) string {
	c := b.Pool.Config().ConnConfig
	return fmt.Sprintf(`Store:
  Driver: postgres
  Host: %q
  Port: %d
  User: %q
  Password: %q
  Db: %q
  Schema: %q
  MaxOpenConns: 64
  MaxIdleConns: 64
HttpPort: %d
GrpcPort: %d
JsonRpcPort: %d
LogLevel: error
`, c.Host, c.Port, c.User, c.Password, c.Database, b.Schema, ports[0], ports[1], ports[2])
}

func (s *dtmServer) stop() {
	if s.process != nil {
		_ = s.process.Process.Kill()
		_ = s.process.Wait()
	}
	if s.dir != "" {
		_ = os.RemoveAll(s.dir)
	}
}

// barrierTable is the table that shows whether a transaction was committed.
func barrierTable(b *frame.Bed) string { return pgx.Identifier{b.Schema, "barrier"}.Sanitize() }

func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
