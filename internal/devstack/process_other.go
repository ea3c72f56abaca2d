//go:build !linux

package devstack

import (
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// setDeathSignal does nothing: only Linux has death signals.
func setDeathSignal(*syscall.SysProcAttr, syscall.Signal) {}

// children returns the ids of pid's direct children.
func children(pid int) []int {
	out, err := exec.Command("ps", "-A", "-o", "pid=,ppid=").Output()
	if err != nil {
		return nil
	}
	var list []int
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		if len(fields) == 2 && fields[1] == strconv.Itoa(pid) {
			if child, err := strconv.Atoi(fields[0]); err == nil {
				list = append(list, child)
			}
		}
	}
	return list
}

// worksIn reports whether a process may have a directory as its working directory, which can't be found out here: any process
// that runs may.
func worksIn(pid int, _ string) bool { return alive(pid) }

// stopped reports whether SIGSTOP has stopped a process.
func stopped(pid int) bool {
	out, err := exec.Command("ps", "-o", "state=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && strings.HasPrefix(strings.TrimSpace(string(out)), "T")
}

// alive reports whether a process runs.
func alive(pid int) bool { return syscall.Kill(pid, 0) != syscall.ESRCH }
