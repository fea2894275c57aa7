//go:build !linux

package callers

import "syscall"

// endWithParent is for Linux alone.
func endWithParent(*syscall.SysProcAttr) {}
