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

// process is a server as a child of ours.
type process struct {
	name    string // for people
	cmd     *exec.Cmd
	logFile string
	logFrom int64         // where the output of this run begins
	done    chan struct{} // closed when it has ended
	err     error         // how it ended; read after done
}

// startProcess starts cmd with its output appended to logFile. A goroutine waits for it, and ends when it does.
func startProcess(name string, cmd *exec.Cmd, logFile string, deathSignal syscall.Signal) (*process, error) {
	out, err := os.OpenFile(logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer out.Close() // the child has its own
	before, err := out.Stat()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	cmd.Stdout, cmd.Stderr = out, out
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true // Ctrl-C is for us: we stop the servers, last
	setDeathSignal(cmd.SysProcAttr, deathSignal)

	p := &process{name: name, cmd: cmd, logFile: logFile, logFrom: before.Size(), done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The death signal is sent when the thread that forked ends, so that thread stays with the child.
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

// await returns when probe has succeeded; with an error when ctx ends first, or the process does.
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

// stop sends sig and waits; when ctx ends it kills.
func (p *process) stop(ctx context.Context, sig syscall.Signal) error {
	if p.ended() {
		return nil
	}
	_ = p.cmd.Process.Signal(sig)
	_ = p.cmd.Process.Signal(syscall.SIGCONT) // a stopped process gets sig only then
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		p.kill()
		return fmt.Errorf("%s had to be killed: %w", p.name, context.Cause(ctx))
	}
}

// kill ends the process and its children at once.
func (p *process) kill() {
	if p.ended() {
		return
	}
	young := children(p.cmd.Process.Pid)
	_ = p.cmd.Process.Kill() // first: it must not see its children die
	<-p.done
	for _, pid := range young {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	for _, pid := range young { // they are not ours to wait for
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
		_ = syscall.Kill(pid, sig) // may have ended
	}
	return nil
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// failure says that the process ended, how, and what it said last.
func (p *process) failure(what string) error {
	how := "exit status 0"
	if p.err != nil {
		how = p.err.Error()
	}
	return fmt.Errorf("%s %s: %s%s", p.name, what, how, p.tail())
}

// output is what this run has printed.
func (p *process) output() []byte {
	b, err := os.ReadFile(p.logFile)
	if err != nil {
		return nil
	}
	return b[min(p.logFrom, int64(len(b))):]
}

func (p *process) tail() string {
	out := p.output()
	if len(out) == 0 {
		return ""
	}
	return fmt.Sprintf("\nlast lines of %s:%s", p.logFile, lastLines(out))
}

// lastLines returns the end of a program's output, indented, each line after a line break.
func lastLines(b []byte) string {
	const most = 15
	lines := strings.Split(string(bytes.TrimSpace(b)), "\n")
	lines = lines[max(0, len(lines)-most):]
	return "\n\t" + strings.Join(lines, "\n\t")
}
