package devstack

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"syscall"
)

// setDeathSignal makes the kernel send sig to the child when this process ends.
func setDeathSignal(attr *syscall.SysProcAttr, sig syscall.Signal) { attr.Pdeathsig = sig }

// children returns the ids of pid's direct children.
func children(pid int) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var list []int
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if _, parent := status(child); parent == pid {
			list = append(list, child)
		}
	}
	return list
}

// alive reports whether a process runs. A zombie doesn't.
func alive(pid int) bool {
	state, _ := status(pid)
	return state != "" && state != "Z"
}

// stopped reports whether SIGSTOP has stopped a process.
func stopped(pid int) bool {
	state, _ := status(pid)
	return state == "T"
}

// status returns the state and the parent of a process. The state is "" if there is no such process.
func status(pid int) (state string, parent int) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0
	}
	// "pid (name) state parent …", and the name may contain anything.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 2 {
		return "", 0
	}
	parent, _ = strconv.Atoi(string(fields[1]))
	return string(fields[0]), parent
}

// worksIn reports whether a process has dir as its working directory.
func worksIn(pid int, dir string) bool {
	cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	return err == nil && cwd == dir
}
