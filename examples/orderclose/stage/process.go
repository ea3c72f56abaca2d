package stage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"syscall"
	"time"
)

const (
	readyTimeout  = 40 * time.Second
	readyInterval = 50 * time.Millisecond
)

// process is a running service.
type process struct {
	command *exec.Cmd
	url     string // of its HTTP interface; set by ready
	log     string
	stdin   io.Closer
	done    chan struct{} // closed once it has ended
	err     error         // why; to be read after done
}

func start(command *exec.Cmd, log string, env ...string) (*process, error) {
	file, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer file.Close() // the child has its own
	command.Env = append(append(os.Environ(), command.Env...), append(env, "LISTEN_ADDR=127.0.0.1:0")...)
	command.Stdout, command.Stderr = file, file
	stdin, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	p := &process{command: command, log: log, stdin: stdin, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.err = command.Wait()
	}()
	return p, nil
}

// listening matches what a service logs once it listens.
var listening = regexp.MustCompile(`HTTP server listens.* address=(\S+)\n`)

// ready waits until GET /readyz responds with 200, and sets the URL. The service chooses its port: another program could take one
// that was chosen for it, and would be asked in its place.
func (p *process) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		if p.url == "" {
			text, _ := os.ReadFile(p.log) // what there is of it
			if match := listening.FindSubmatch(text); match != nil {
				p.url = "http://" + string(match[1])
			}
		}
		if p.url != "" && p.respondsReady(ctx) {
			return nil
		}
		select {
		case <-p.done:
			text, _ := os.ReadFile(p.log) // what there is of it
			return fmt.Errorf("service has ended (%v): %s", p.command.ProcessState, lastLine(text))
		case <-ctx.Done():
			return fmt.Errorf("service isn't ready, see %s: %w", p.log, context.Cause(ctx))
		case <-time.After(readyInterval):
		}
	}
}

func (p *process) respondsReady(ctx context.Context) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+"/readyz", nil)
	if err != nil {
		return false
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	response.Body.Close()
	return response.StatusCode == http.StatusOK
}

func lastLine(text []byte) []byte {
	text = bytes.TrimSpace(text)
	return text[bytes.LastIndexByte(text, '\n')+1:]
}

// kill ends the process at once, as a crash would. Its end is not an error then.
func (p *process) kill() {
	_ = p.command.Process.Kill() // it may have ended
	<-p.done
	p.err = nil
}

// stop ends processes in an orderly way; those that still run when ctx ends are killed.
func stop(ctx context.Context, processes []*process) error {
	for _, p := range processes {
		_ = p.command.Process.Signal(syscall.SIGTERM) // it may have ended
		_ = p.stdin.Close()
	}
	var errs []error
	for _, p := range processes {
		select {
		case <-p.done:
		case <-ctx.Done():
			_ = p.command.Process.Kill()
			<-p.done
		}
		if p.err != nil {
			errs = append(errs, fmt.Errorf("service did not stop cleanly, see %s: %w", p.log, p.err))
		}
	}
	return errors.Join(errs...)
}

// StopWithParent makes a service that Run started stop when the process of Run has ended, for whatever reason. The service
// calls it first of all.
func StopWithParent() {
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		if self, err := os.FindProcess(os.Getpid()); err == nil {
			_ = self.Signal(syscall.SIGTERM)
		}
		time.Sleep(2 * stopTimeout)
		os.Exit(1)
	}()
}
