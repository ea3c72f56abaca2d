package main

import "syscall"

// ownProcess has a child die with this program, and not hear its Ctrl-C.
func ownProcess() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
