package devstack_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"
)

func TestServersEndWithAKilledParent(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	parent := exec.Command(self)
	parent.Env = append(os.Environ(), parentEnv+"=1")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	parent.Process.Kill()
	parent.Wait()
	dir := strings.TrimSpace(line)
	if err != nil || !strings.HasPrefix(dir, "/") {
		t.Fatalf("parent said %q (%v)", line, err)
	}
	defer os.RemoveAll(dir)
	poll.Succeeds(t, 20*time.Second, func() error {
		if running := processesWith(t, dir); len(running) > 0 {
			return fmt.Errorf("left running: %q", running)
		}
		return nil
	})
}
