package controlplane

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"k8s.io/apimachinery/pkg/util/wait"
)

// StopAPIServer kills the API server, so that its port refuses connections.
// etcd keeps the data.
func (cp *ControlPlane) StopAPIServer() error {
	return cp.halt(apiServer, cp.env.ControlPlane.GetAPIServer().Stop)
}

// StartAPIServer starts the API server again on the same port, with the same
// certificates, and returns when it is healthy.
func (cp *ControlPlane) StartAPIServer() error {
	return cp.restart(apiServer, cp.env.ControlPlane.GetAPIServer().Start)
}

// PauseAPIServer makes the API server hang: connections open and requests are
// taken, and none is answered until ResumeAPIServer.
func (cp *ControlPlane) PauseAPIServer() error { return cp.pause(apiServer) }

// ResumeAPIServer ends a pause; without one it does nothing.
func (cp *ControlPlane) ResumeAPIServer() error { return cp.resume(apiServer) }

// StopEtcd kills etcd. Its folder EtcdData may then be copied, or replaced by
// an earlier copy.
func (cp *ControlPlane) StopEtcd() error { return cp.halt(etcd, cp.env.ControlPlane.Etcd.Stop) }

// StartEtcd starts etcd again on the same port, with what is in EtcdData, and
// returns when it is healthy.
func (cp *ControlPlane) StartEtcd() error { return cp.restart(etcd, cp.env.ControlPlane.Etcd.Start) }

// PauseEtcd makes etcd hang until ResumeEtcd.
func (cp *ControlPlane) PauseEtcd() error { return cp.pause(etcd) }

// ResumeEtcd ends a pause; without one it does nothing.
func (cp *ControlPlane) ResumeEtcd() error { return cp.resume(etcd) }

// EtcdURL is where etcd answers, without TLS.
func (cp *ControlPlane) EtcdURL() string { return cp.env.ControlPlane.Etcd.URL.String() }

// EtcdData is the folder of etcd's data.
func (cp *ControlPlane) EtcdData() string { return filepath.Join(cp.dir, "etcd-data") }

func (cp *ControlPlane) halt(program string, stop func() error) error {
	if err := cp.kill(program); err != nil {
		return err
	}
	cp.paused[program] = false
	if err := reap(stop); err != nil {
		return fmt.Errorf("stopping %s: %w", program, err)
	}
	return nil
}

func (cp *ControlPlane) restart(program string, start func() error) error {
	if err := start(); err != nil {
		return errors.Join(fmt.Errorf("starting %s again: %w", program, err), cp.logTails())
	}
	return nil
}

func (cp *ControlPlane) pause(program string) error {
	pid, err := cp.signal(program, syscall.SIGSTOP)
	if err != nil {
		return err
	}
	cp.paused[program] = true
	// The signal is not there yet when kill returns, and a request in that
	// instant would still be answered: wait until the process has stopped.
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(pid, &status, syscall.WUNTRACED, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("waiting for %s to pause: %w", program, err)
		}
		if !status.Stopped() {
			return fmt.Errorf("waiting for %s to pause: it ended with status %d", program, status)
		}
		return nil
	}
}

func (cp *ControlPlane) resume(program string) error {
	if !cp.paused[program] {
		return nil
	}
	cp.paused[program] = false
	_, err := cp.signal(program, syscall.SIGCONT)
	return err
}

// reap calls stop of envtest until it has noticed the end of a process that was
// killed: between the two it answers that there is no such process.
func reap(stop func() error) error {
	var last error
	err := wait.PollUntilContextTimeout(context.Background(), pollInterval, stopTimeout, true, func(context.Context) (bool, error) {
		last = stop()
		return !errors.Is(last, syscall.ESRCH), nil
	})
	return errors.Join(err, last)
}

func (cp *ControlPlane) pidFile(program string) string {
	return filepath.Join(cp.dir, program+".pid")
}

func (cp *ControlPlane) signal(program string, sig syscall.Signal) (pid int, err error) {
	raw, err := os.ReadFile(cp.pidFile(program))
	if err != nil {
		return 0, fmt.Errorf("finding the process of %s: %w", program, err)
	}
	pid, err = strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		return 0, fmt.Errorf("reading the process ID of %s: %w", program, err)
	}
	if err := syscall.Kill(pid, sig); err != nil {
		return 0, fmt.Errorf("sending %s to %s: %w", sig, program, err)
	}
	return pid, nil
}

// kill ends a program and forgets its process ID. One that has ended already is
// no error.
func (cp *ControlPlane) kill(program string) error {
	_, err := cp.signal(program, syscall.SIGKILL)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Remove(cp.pidFile(program))
}
