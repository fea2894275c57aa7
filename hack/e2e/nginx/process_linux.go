package nginx

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// endWithParent has the kernel stop nginx when the process that started it dies
// without having called Stop.
func endWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
}

// soleWorker tells whether one worker takes connections. After a reload there
// are two for a moment: nginx starts the new one before it tells the old one to
// finish, which then renames itself.
func soleWorker(master int) bool {
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", master, master))
	if err != nil {
		return false
	}
	working := 0
	for child := range strings.FieldsSeq(string(children)) {
		title, err := os.ReadFile("/proc/" + child + "/cmdline")
		if err == nil && string(bytes.TrimRight(title, "\x00 ")) == "nginx: worker process" {
			working++
		}
	}
	return working == 1
}
