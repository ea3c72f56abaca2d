//go:build !linux

package main

import "syscall"

// ownProcess has a child not hear this program's Ctrl-C: its input ends then.
func ownProcess() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
