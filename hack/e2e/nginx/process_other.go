//go:build !linux

package nginx

import "syscall"

// endWithParent is empty: only Linux ends a process with its parent.
func endWithParent() *syscall.SysProcAttr { return nil }

// soleWorker cannot be seen from outside; the answer of the new configuration
// has to do.
func soleWorker(int) bool { return true }
