package servicetest

import (
	"bufio"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow/test/testdb"
)

// Program is a main that runs as a process of its own: the test's binary, whose TestMain calls main if IsChild.
type Program struct {
	URL    string        // of its HTTP interface, if it has one; set by Ready
	Pool   *pgxpool.Pool // finds the program's tables
	Output <-chan string // lines that it writes to stdout; closed at its end

	t         testing.TB
	command   *exec.Cmd
	listening chan string // the address of its HTTP interface
}

// StartProgram starts the main of an example with a schema, a namespace at the broker, and an address of its own. Wait or
// Stop ends it.
func StartProgram(t testing.TB) *Program {
	t.Helper()
	pool, schema := testdb.Schema(t)
	database, err := url.Parse(testdb.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	query := database.Query()
	query.Set("search_path", schema)
	database.RawQuery = query.Encode()
	p := &Program{Pool: pool, t: t, listening: make(chan string, 1)}
	p.command = command(t.Context(), []string{
		"DATABASE_URL=" + database.String(), "ROCKETFLOW_SCHEMA=" + schema, "ROCKETMQ_NAMESRV=" + os.Getenv("ROCKETMQ_NAMESRV"),
		"ROCKETMQ_NAMESPACE=test_" + strings.ReplaceAll(uuid.NewString(), "-", "")[:12], "LISTEN_ADDR=127.0.0.1:0",
	})
	p.command.Stderr = io.MultiWriter(t.Output(), &logReader{found: p.listening})
	stdout, err := p.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.command.Start(); err != nil {
		t.Fatal(err)
	}
	output := make(chan string, 1000)
	p.Output = output
	go func() {
		defer close(output)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			output <- lines.Text()
		}
	}()
	return p
}

// Ready waits until the program's GET /readyz responds with 200.
func (p *Program) Ready() {
	p.t.Helper()
	select {
	case address := <-p.listening:
		p.URL = "http://" + address
	case <-time.After(40 * time.Second):
		p.t.Fatal("the program doesn't listen")
	}
	for deadline := time.Now().Add(40 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		response, err := http.Get(p.URL + "/readyz")
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("the program isn't ready: %v", err)
		}
	}
}

// Want sends a request without a body, and fails the test unless the response has a status.
func (p *Program) Want(status int, method, path string) {
	p.t.Helper()
	request, err := http.NewRequestWithContext(p.t.Context(), method, p.URL+path, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		p.t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != status {
		p.t.Errorf("%s %s: %s, want %d", method, path, response.Status, status)
	}
}

// WaitFor waits until a query returns a text.
func (p *Program) WaitFor(want, query string, args ...any) {
	p.t.Helper()
	for deadline := time.Now().Add(40 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		var got string
		err := p.Pool.QueryRow(p.t.Context(), query, args...).Scan(&got)
		if err == nil && got == want {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%s %v: %q, %v, want %q", query, args, got, err, want)
		}
	}
}

// Stop stops the program by a signal, and fails the test unless it ends in order.
func (p *Program) Stop() {
	p.t.Helper()
	if err := p.command.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Error(err)
	}
	p.Wait()
}

// Wait waits for the end of the program and returns the rest of its output.
func (p *Program) Wait() []string {
	p.t.Helper()
	var lines []string
	for line := range p.Output {
		lines = append(lines, line)
	}
	if err := p.command.Wait(); err != nil {
		p.t.Errorf("the program did not end in order: %v", err)
	}
	return lines
}

// logReader reads a log for the address that the program listens on. The program chooses its port: another one could take a
// port that was chosen for it, and would be asked in its place.
type logReader struct {
	found chan<- string
	text  []byte // not yet understood
}

var listening = regexp.MustCompile(`HTTP server listens.* address=(\S+)\n`)

func (r *logReader) Write(text []byte) (int, error) {
	if r.found != nil {
		r.text = append(r.text, text...)
		if match := listening.FindSubmatch(r.text); match != nil {
			r.found <- string(match[1])
			*r = logReader{}
		}
	}
	return len(text), nil
}
