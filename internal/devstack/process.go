package devstack

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// process is a server that runs as a child process.
type process struct {
	name    string // for messages
	cmd     *exec.Cmd
	logFile string
	logFrom int64         // offset of the output of this run
	done    chan struct{} // closed when the process has ended
	err     error         // of Wait; read it after done
}

// startProcess starts cmd, with its output appended to logFile. On Linux the child gets deathSignal when this process ends. A
// goroutine waits for the child and ends with it.
func startProcess(name string, cmd *exec.Cmd, logFile string, deathSignal syscall.Signal) (*process, error) {
	out, err := os.OpenFile(logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer out.Close() // the child has a copy
	before, err := out.Stat()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	cmd.Stdout, cmd.Stderr = out, out
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true // Ctrl-C must not reach the servers: they are stopped after their clients
	setDeathSignal(cmd.SysProcAttr, deathSignal)

	p := &process{name: name, cmd: cmd, logFile: logFile, logFrom: before.Size(), done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The death signal is sent when the thread that has forked ends, so this thread must live as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
		}
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// await waits until probe succeeds. It returns an error if ctx or the process ends first.
func (p *process) await(ctx context.Context, probe func(context.Context) error) error {
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for {
		err := probe(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return p.failure("did not start")
		case <-ctx.Done():
			return fmt.Errorf("%s did not start in time: %w (%w)%s", p.name, context.Cause(ctx), err, p.tail())
		case <-tick.C:
		}
	}
}

// stop sends sig and waits for the end of the process. When ctx ends first, it kills the process.
func (p *process) stop(ctx context.Context, sig syscall.Signal) error {
	if p.ended() {
		return nil
	}
	_ = p.cmd.Process.Signal(sig)
	_ = p.cmd.Process.Signal(syscall.SIGCONT) // a process that is stopped receives sig only when it continues
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		p.kill()
		return fmt.Errorf("%s had to be killed: %w", p.name, context.Cause(ctx))
	}
}

// kill kills the process and its children.
func (p *process) kill() {
	if p.ended() {
		return
	}
	// A stopped process starts no child that would be left out. An error means that it has ended.
	_ = p.cmd.Process.Signal(syscall.SIGSTOP)
	for deadline := time.Now().Add(time.Second); !p.ended() && !stopped(p.cmd.Process.Pid) && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	descendants := children(p.cmd.Process.Pid)
	_ = p.cmd.Process.Kill() // before its children: it must not handle their deaths
	<-p.done
	for _, pid := range descendants {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	for _, pid := range descendants { // not children of this process, so there is no wait for them
		for deadline := time.Now().Add(5 * time.Second); alive(pid) && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
	}
}

// signal sends sig to the process and its children.
func (p *process) signal(sig syscall.Signal) error {
	if p.ended() {
		return fmt.Errorf("%s is not running", p.name)
	}
	if err := p.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("signal %s: %w", p.name, err)
	}
	for _, pid := range children(p.cmd.Process.Pid) {
		_ = syscall.Kill(pid, sig) // an error means that it has ended
	}
	return nil
}

// ended reports whether the process has ended.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// failure returns an error with the exit status of the process and the last lines of its output.
func (p *process) failure(what string) error {
	how := "exit status 0"
	if p.err != nil {
		how = p.err.Error()
	}
	return fmt.Errorf("%s %s: %s%s", p.name, what, how, p.tail())
}

// output returns what this run has printed.
func (p *process) output() []byte {
	b, err := os.ReadFile(p.logFile)
	if err != nil {
		return nil
	}
	return b[min(p.logFrom, int64(len(b))):]
}

// tail returns the last lines of the output for an error, or "".
func (p *process) tail() string {
	out := p.output()
	if len(out) == 0 {
		return ""
	}
	return fmt.Sprintf("\nlast lines of %s:%s", p.logFile, lastLines(out))
}

// lastLines returns the end of a program's output, indented, each line after a line break.
func lastLines(b []byte) string {
	const maxLines = 15
	lines := strings.Split(string(bytes.TrimSpace(b)), "\n")
	lines = lines[max(0, len(lines)-maxLines):]
	return "\n\t" + strings.Join(lines, "\n\t")
}
