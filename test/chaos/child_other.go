//go:build !linux

package main

import "syscall"

// ownProcess has a child not receive the Ctrl-C of this program. It ends when its standard input does.
func ownProcess() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
