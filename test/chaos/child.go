package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/rocketflow/rocketflow/rocketmqtest"
)

// childVariable is the environment variable that makes this program a child process. It holds the settings.
const childVariable = "ROCKETFLOW_CHAOS_PROCESS"

// childCommand is a command to a child process, a line of JSON on its standard input.
type childCommand struct {
	ID          int64        `json:",omitempty"` // of a transaction; its report has the same
	Transaction *transaction `json:",omitempty"`
	Arm         *struct {
		Action action
		Step   string
		Nth    int
	} `json:",omitempty"`
	Cut *struct {
		Write bool
		Left  int
	} `json:",omitempty"`
	Disarm  bool   `json:",omitempty"`
	Release uint64 `json:",omitempty"` // the schedule whose handlers stop hanging
}

// childReport is a report of a child process, a line of JSON on its standard output. The first one, with id 0, says whether it
// has started.
type childReport struct {
	ID             int64
	Error          string
	AfterCommitted string // the AfterCommit function of this event was called; a report of its own
	Frozen         bool   // the process stops right after this report; a report of its own
}

// child is an instance that is a child process. SIGKILL ends it.
type child struct {
	cmd   *exec.Cmd
	input io.Closer
	ended chan struct{}

	sending  sync.Mutex // isn't mu, as writing to a frozen process may wait until thaw
	commands *json.Encoder

	mu      sync.Mutex // guards the fields below
	next    int64
	waiting map[int64]chan error
	stopped bool // frozen until thaw

	recordAfterCommit func(event string)
}

var errKilled = errors.New("the process was killed")

func startChild(ctx context.Context, w *world, s settings) (instance, error) {
	config, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.Command(self), ended: make(chan struct{}), waiting: map[int64]chan error{}, recordAfterCommit: w.recordAfterCommit}
	c.cmd.Env = append(os.Environ(), childVariable+"="+string(config))
	c.cmd.SysProcAttr = ownProcess()
	c.cmd.Stderr = logWriter{w}
	input, err := c.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	output, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.commands, c.input = json.NewEncoder(input), input
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	started := make(chan error, 1)
	c.waiting[0] = started
	w.cleanups.Go(func() { c.listen(output) })
	select {
	case err := <-started:
		if err != nil {
			c.kill()
			<-c.ended
			return nil, err
		}
		return c, nil
	case <-ctx.Done():
		c.kill()
		<-c.ended
		return nil, ctx.Err()
	}
}

type logWriter struct{ w *world }

func (n logWriter) Write(b []byte) (int, error) {
	n.w.logf("%s", b)
	return len(b), nil
}

// listen receives the child's reports until the child has ended.
func (c *child) listen(output io.Reader) {
	lines := json.NewDecoder(output)
	for {
		var a childReport
		if lines.Decode(&a) != nil {
			break
		}
		switch {
		case a.AfterCommitted != "":
			c.recordAfterCommit(a.AfterCommitted)
			continue
		case a.Frozen:
			c.mu.Lock()
			c.stopped = true
			c.mu.Unlock()
			continue
		}
		var err error
		if a.Error != "" {
			err = errors.New(a.Error)
		}
		c.finishCall(a.ID, err)
	}
	_ = c.cmd.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.ended)
	for id, done := range c.waiting {
		done <- errKilled
		delete(c.waiting, id)
	}
}

func (c *child) finishCall(id int64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if done := c.waiting[id]; done != nil {
		done <- err
		delete(c.waiting, id)
	}
}

func (c *child) send(o childCommand) error {
	c.sending.Lock()
	defer c.sending.Unlock()
	return c.commands.Encode(o)
}

func (c *child) do(ctx context.Context, t transaction) error {
	done := make(chan error, 1)
	c.mu.Lock()
	c.next++
	id := c.next
	if c.hasEnded() {
		c.mu.Unlock()
		return errKilled
	}
	c.waiting[id] = done
	c.mu.Unlock()
	if err := c.send(childCommand{ID: id, Transaction: &t}); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// await returns when all transactions have ended. One that was sent to a frozen process begins when that goes on, after do
// has returned.
func (c *child) await(ctx context.Context) error {
	for {
		c.mu.Lock()
		left := len(c.waiting)
		c.mu.Unlock()
		if left == 0 {
			return nil
		}
		select {
		case <-c.ended:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pollInterval):
		}
	}
}

func (c *child) arm(a action, step string, nth int) {
	_ = c.send(childCommand{Arm: &struct {
		Action action
		Step   string
		Nth    int
	}{a, step, nth}}) // a process that has ended needs no crash point
}

func (c *child) release(schedule uint64) { _ = c.send(childCommand{Release: schedule}) }

func (c *child) frozen() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stopped && !c.hasEnded()
}

func (c *child) thaw() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		c.stopped = false
		_ = c.cmd.Process.Signal(syscall.SIGCONT)
	}
}

// hanging returns 0: children don't report it. The simulated processes of the embedded broker do.
func (c *child) hanging() int { return 0 }

func (c *child) err() string { return "" }

func (c *child) disarm() { _ = c.send(childCommand{Disarm: true}) }

func (c *child) cutPostgres(t connFault) {
	_ = c.send(childCommand{Cut: &struct {
		Write bool
		Left  int
	}{t.write, t.left}})
}

// isolate stops the process with SIGSTOP until heal.
func (c *child) isolate(rocketmqtest.Outage) (heal func()) {
	_ = c.cmd.Process.Signal(syscall.SIGSTOP)
	return func() { _ = c.cmd.Process.Signal(syscall.SIGCONT) }
}

func (c *child) kill() { _ = c.cmd.Process.Kill() }

func (c *child) hasEnded() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

func (c *child) close() {
	c.input.Close()
	select {
	case <-c.ended:
	case <-time.After(10 * time.Second):
		c.kill()
		<-c.ended
	}
}

// runChild is the main function of a child process: it runs commands until its standard input ends.
func runChild(text string) error {
	var s settings
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return err
	}
	var mu sync.Mutex
	responses := json.NewEncoder(os.Stdout)
	send := func(a childReport) {
		mu.Lock()
		defer mu.Unlock()
		_ = responses.Encode(a) // fails only when the parent has ended
	}
	respond := func(id int64, err error) {
		a := childReport{ID: id}
		if err != nil {
			a.Error = err.Error()
		}
		send(a)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	p, err := startProcess(ctx, s, nil, hooks{
		do: map[action]func(*process){
			crash: func(*process) {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {} // until the signal arrives
			},
			freeze: func(*process) {
				send(childReport{Frozen: true})
				_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
			},
		},
		recordAfterCommit: func(event string) { send(childReport{AfterCommitted: event}) },
	})
	respond(0, err)
	if err != nil {
		return err
	}
	commands := json.NewDecoder(bufio.NewReader(os.Stdin))
	for {
		var o childCommand
		if err := commands.Decode(&o); err != nil {
			p.stop(5 * time.Second)
			return nil
		}
		switch {
		case o.Transaction != nil:
			go func() { // this goroutine ends with the process
				ctx, cancel := context.WithTimeout(context.Background(), transactionTimeout)
				defer cancel()
				respond(o.ID, p.do(ctx, *o.Transaction))
			}()
		case o.Arm != nil:
			p.arm(o.Arm.Action, o.Arm.Step, o.Arm.Nth)
		case o.Disarm:
			p.arm(crash, "", 0)
			p.pgLink.arm(connFault{})
		case o.Release != 0:
			p.release(o.Release)
		case o.Cut != nil && o.Cut.Left == 0:
			p.pgLink.cut()
		case o.Cut != nil:
			p.pgLink.arm(connFault{write: o.Cut.Write, left: o.Cut.Left})
		default:
			return fmt.Errorf("empty command: %v", o)
		}
	}
}
