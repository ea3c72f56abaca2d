package main

import "syscall"

// ownProcess has a child end with this program, and not receive its Ctrl-C.
func ownProcess() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
