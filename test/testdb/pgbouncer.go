package testdb

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// ThroughPgBouncer starts a PgBouncer with a pool mode, "session" or "transaction", in front of the server that pool
// connects to, and returns a pool that connects through it as the same role. PgBouncer drops startup parameters such as
// search_path: give the role a default with ALTER ROLE. In transaction mode PgBouncer has no prepared statements, so the
// returned pool uses pgx's query mode "exec".
//
// The test is skipped where PgBouncer is not installed, and fails there if the environment variable CI is set.
func ThroughPgBouncer(t testing.TB, pool *pgxpool.Pool, mode string) *pgxpool.Pool {
	t.Helper()
	program := pgBouncerProgram(t)
	server := pool.Config().ConnConfig
	dir, err := os.MkdirTemp("", "pgbouncer") // not t.TempDir, which other users can't enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	password := "" // PgBouncer rejects an empty one
	if server.Password != "" {
		password = " password='" + strings.ReplaceAll(server.Password, "'", "''") + "'"
	}
	config := fmt.Sprintf(`[databases]
%s = host=%s port=%d user=%s%s
[pgbouncer]
listen_addr =
listen_port = %d
auth_type = any
unix_socket_dir = %s
pool_mode = %s
max_client_conn = 200
default_pool_size = 20
logfile = %s
`, server.Database, server.Host, server.Port, server.User, password, pgBouncerPort, dir, mode, filepath.Join(dir, "log"))
	file := filepath.Join(dir, "pgbouncer.ini")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{file}
	if os.Getuid() == 0 { // PgBouncer refuses to run as root
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		args = []string{"-u", "nobody", file}
	}
	cmd := exec.Command(program, args...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatalf("start pgbouncer: %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("pgbouncer: %s", &output)
		}
	})
	through := Like(t, pool, func(c *pgxpool.Config) {
		c.ConnConfig.Host, c.ConnConfig.Port, c.ConnConfig.Fallbacks, c.ConnConfig.TLSConfig = dir, pgBouncerPort, nil, nil
		clear(c.ConnConfig.RuntimeParams)
		if mode == "transaction" {
			c.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
		}
	})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err := through.Ping(context.Background())
		if err == nil {
			return through
		}
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Fatalf("pgbouncer does not accept connections: %v\n%s", err, log)
		}
	}
}

// pgBouncerPort names the socket in PgBouncer's directory. It listens on no TCP port, which another program might have taken.
const pgBouncerPort = 6432

// pgBouncerProgram returns the path of pgbouncer.
func pgBouncerProgram(t testing.TB) string {
	t.Helper()
	for _, name := range []string{"pgbouncer", "/usr/sbin/pgbouncer"} {
		if program, err := exec.LookPath(name); err == nil {
			return program
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatal("pgbouncer is not installed")
	}
	t.Skip("pgbouncer is not installed: apt-get install pgbouncer")
	return ""
}
