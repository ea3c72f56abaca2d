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

// childVariable tells this program to be a process of a world: it holds its settings.
const childVariable = "ROCKETFLOW_CHAOS_PROCESS"

// order is what a child is told, in a line of JSON.
type order struct {
	ID          int64        `json:",omitempty"` // of a transaction, for its answer
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
	Release uint64 `json:",omitempty"` // the schedule whose handlers are to hang no longer
}

// answer is what it says; the first, of no transaction, that it runs.
type answer struct {
	ID        int64
	Error     string
	Announced string // AfterCommit was called for this event; no answer to anything
	Frozen    bool   // it will be at once; no answer to anything
}

// child is a process of its own. It dies by SIGKILL.
type child struct {
	cmd    *exec.Cmd
	orders *json.Encoder
	input  io.Closer
	ended  chan struct{}

	mu      sync.Mutex // of the orders, and what follows
	next    int64
	waiting map[int64]chan error
	stopped bool // until it is told to go on

	announce func(event string)
}

var errKilled = errors.New("the process was killed")

func startChild(ctx context.Context, w *world, s settings) (member, error) {
	config, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.Command(self), ended: make(chan struct{}), waiting: map[int64]chan error{}, announce: w.announce}
	c.cmd.Env = append(os.Environ(), childVariable+"="+string(config))
	c.cmd.SysProcAttr = ownProcess()
	c.cmd.Stderr = noteWriter{w}
	input, err := c.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	output, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.orders, c.input = json.NewEncoder(input), input
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	started := make(chan error, 1)
	c.waiting[0] = started
	w.zombies.Go(func() { c.listen(output) })
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

type noteWriter struct{ w *world }

func (n noteWriter) Write(b []byte) (int, error) {
	n.w.note("%s", b)
	return len(b), nil
}

// listen hands over the child's answers until it is dead.
func (c *child) listen(output io.Reader) {
	lines := json.NewDecoder(output)
	for {
		var a answer
		if lines.Decode(&a) != nil {
			break
		}
		switch {
		case a.Announced != "":
			c.announce(a.Announced)
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
		c.settle(a.ID, err)
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

func (c *child) settle(id int64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if done := c.waiting[id]; done != nil {
		done <- err
		delete(c.waiting, id)
	}
}

func (c *child) tell(o order) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.orders.Encode(o)
}

func (c *child) do(ctx context.Context, t transaction) error {
	done := make(chan error, 1)
	c.mu.Lock()
	c.next++
	id := c.next
	if c.dead() {
		c.mu.Unlock()
		return errKilled
	}
	c.waiting[id] = done
	c.mu.Unlock()
	if err := c.tell(order{ID: id, Transaction: &t}); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// await waits until all transactions have ended. One that was told to a process which is frozen begins when it goes on,
// long after its driver has given it up.
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
	_ = c.tell(order{Arm: &struct {
		Action action
		Step   string
		Nth    int
	}{a, step, nth}}) // who is dead needn't be told
}

func (c *child) release(schedule uint64) { _ = c.tell(order{Release: schedule}) }

func (c *child) frozen() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stopped && !c.dead()
}

func (c *child) thaw() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		c.stopped = false
		_ = c.cmd.Process.Signal(syscall.SIGCONT)
	}
}

// hanging and err are not asked for: what can be seen inside shows it.
func (c *child) hanging() int { return 0 }

func (c *child) err() string { return "" }

func (c *child) disarm() { _ = c.tell(order{Disarm: true}) }

func (c *child) cutPostgres(t trap) {
	_ = c.tell(order{Cut: &struct {
		Write bool
		Left  int
	}{t.write, t.left}})
}

// isolate stops the process where it is.
func (c *child) isolate(rocketmqtest.Outage) (heal func()) {
	_ = c.cmd.Process.Signal(syscall.SIGSTOP)
	return func() { _ = c.cmd.Process.Signal(syscall.SIGCONT) }
}

func (c *child) kill() { _ = c.cmd.Process.Kill() }

func (c *child) dead() bool {
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

// beChild is the main of a child: it does what it is told until its input ends.
func beChild(text string) error {
	var s settings
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return err
	}
	var mu sync.Mutex
	answers := json.NewEncoder(os.Stdout)
	tell := func(a answer) {
		mu.Lock()
		defer mu.Unlock()
		_ = answers.Encode(a) // or nobody is there any more
	}
	say := func(id int64, err error) {
		a := answer{ID: id}
		if err != nil {
			a.Error = err.Error()
		}
		tell(a)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	p, err := startProcess(ctx, s, nil, hooks{
		do: map[action]func(*process){
			die: func(*process) {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {} // until it arrives
			},
			freeze: func(*process) {
				tell(answer{Frozen: true})
				_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
			},
		},
		announce: func(event string) { tell(answer{Announced: event}) },
	})
	say(0, err)
	if err != nil {
		return err
	}
	orders := json.NewDecoder(bufio.NewReader(os.Stdin))
	for {
		var o order
		if err := orders.Decode(&o); err != nil {
			p.stop(5 * time.Second)
			return nil
		}
		switch {
		case o.Transaction != nil:
			go func() { // ends with the process
				ctx, cancel := context.WithTimeout(context.Background(), transactionTimeout)
				defer cancel()
				say(o.ID, p.do(ctx, *o.Transaction))
			}()
		case o.Arm != nil:
			p.arm(o.Arm.Action, o.Arm.Step, o.Arm.Nth)
		case o.Disarm:
			p.arm(die, "", 0)
			p.gate.arm(trap{})
		case o.Release != 0:
			p.release(o.Release)
		case o.Cut != nil && o.Cut.Left == 0:
			p.gate.cut()
		case o.Cut != nil:
			p.gate.arm(trap{write: o.Cut.Write, left: o.Cut.Left})
		default:
			return fmt.Errorf("an order that says nothing: %v", o)
		}
	}
}
