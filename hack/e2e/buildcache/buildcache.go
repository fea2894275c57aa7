package buildcache

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// stopTimeout is how long a script has to clean up when the context has ended.
const stopTimeout = 20 * time.Second

// Path is what hack/NAME/build.sh prints: the program, or the folder of them.
// The first call on a machine builds it, for minutes. progress receives what
// the script reports; nil means standard error.
func Path(ctx context.Context, name string, progress io.Writer) (string, error) {
	if progress == nil {
		progress = os.Stderr
	}
	_, file, _, _ := runtime.Caller(0)
	cmd := exec.CommandContext(ctx, filepath.Join(filepath.Dir(file), "..", "..", name, "build.sh"))
	cmd.Stderr = progress
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopTimeout
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("getting %s: %w; run `make %s` to see why", name, err, name)
	}
	return strings.TrimSpace(string(out)), nil
}
