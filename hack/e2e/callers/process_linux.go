package callers

import "syscall"

// endWithParent lets the kernel end a process whose parent dies.
func endWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
