//go:build linux

package ingressnginx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// interfacePrefix starts the name of the host's end of each veth pair; the
// process ID of the test and a counter follow (at most 15 bytes in all).
const interfacePrefix = "kwin"

// counter tells the controllers of one test process apart.
var counter atomic.Int32

// network is a veth pair with the smallest subnet that holds its two ends.
type network struct {
	name     string // the host's end
	host     netip.Addr
	peer     netip.Addr
	forwards forwards
}

const subnetBits = 30

// choose takes a subnet of 198.18.0.0/15 that no interface of the host is in:
// the range is set aside for tests of network devices (RFC 2544), so nothing
// routes to it, and an EndpointSlice may hold its addresses.
func choose() (*network, error) {
	pid, n := os.Getpid(), int(counter.Add(1))
	taken, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("listing the host's addresses: %w", err)
	}
	const subnets = 1 << (subnetBits - 15)
	for try := range subnets {
		// Neighbouring process IDs start 8 subnets apart, so that tests that run
		// side by side do not meet.
		offset := uint32((pid*8+n+try)%subnets) << (32 - subnetBits)
		base := uint32(198)<<24 | uint32(18)<<16 | offset
		address := func(i uint32) netip.Addr {
			a := base + i
			return netip.AddrFrom4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)})
		}
		prefix := netip.PrefixFrom(address(0), subnetBits)
		if !overlaps(prefix, taken) {
			return &network{
				name: fmt.Sprintf("%s%d.%d", interfacePrefix, pid, n%100),
				host: address(1),
				peer: address(2),
			}, nil
		}
	}
	return nil, errors.New("choosing a subnet of 198.18.0.0/15: all are taken")
}

func overlaps(prefix netip.Prefix, taken []net.Addr) bool {
	for _, address := range taken {
		if other, err := netip.ParsePrefix(address.String()); err == nil && prefix.Overlaps(other) {
			return true
		}
	}
	return false
}

// connect makes the pair, its far end as eth0 in the network of process pid.
func (n *network) connect(ctx context.Context, pid int) error {
	for _, arguments := range [][]string{
		{"link", "add", n.name, "type", "veth", "peer", "name", "eth0", "netns", strconv.Itoa(pid)},
		{"address", "add", n.prefix(n.host), "dev", n.name},
		{"link", "set", n.name, "up"},
	} {
		if err := ip(ctx, arguments...); err != nil {
			return fmt.Errorf("connecting the controller's network: %w", err)
		}
	}
	return nil
}

func (n *network) prefix(address netip.Addr) string {
	return netip.PrefixFrom(address, subnetBits).String()
}

// close ends the forwarders and removes the pair, unless the kernel was faster:
// it does so after the last process in the controller's network.
func (n *network) close() error {
	n.forwards.close()
	return removeInterface(n.name)
}

func removeInterface(name string) error {
	err := ip(context.Background(), "link", "delete", name)
	if err == nil {
		return nil
	}
	if _, lookup := net.InterfaceByName(name); lookup != nil {
		return nil
	}
	return fmt.Errorf("removing the interface %s: %w", name, err)
}

// folderPrefix starts the name of a controller's folder; the process ID of the
// test follows.
const folderPrefix = "keywright-ingress-nginx-"

// removeStale removes what tests that are no longer there have left.
func removeStale() error {
	folders, err := filepath.Glob(filepath.Join(os.TempDir(), folderPrefix+"*"))
	if err != nil {
		return fmt.Errorf("listing the controllers' folders: %w", err)
	}
	for _, folder := range folders {
		if !stale(strings.TrimPrefix(filepath.Base(folder), folderPrefix), "-") {
			continue
		}
		if err := os.RemoveAll(folder); err != nil {
			return fmt.Errorf("removing the folder of a test that is gone: %w", err)
		}
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("listing the host's interfaces: %w", err)
	}
	for _, i := range interfaces {
		rest, ours := strings.CutPrefix(i.Name, interfacePrefix)
		if !ours || !stale(rest, ".") {
			continue
		}
		if err := removeInterface(i.Name); err != nil {
			return err
		}
	}
	return nil
}

// stale tells whether name starts with the ID of a process that is gone.
func stale(name, separator string) bool {
	digits, _, _ := strings.Cut(name, separator)
	pid, err := strconv.Atoi(digits)
	if err != nil || pid <= 0 {
		return false
	}
	// Signal 0 asks only whether there is such a process.
	return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}

func ip(ctx context.Context, arguments ...string) error {
	out, err := exec.CommandContext(ctx, "ip", arguments...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(arguments, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// forwards are TCP forwarders from the host's end of the pair to the host's
// loopback.
type forwards struct {
	mu        sync.Mutex
	listeners []net.Listener
	open      map[net.Conn]bool
	closed    bool
	wg        sync.WaitGroup
}

// add forwards connections at a free port of from to the address to.
func (f *forwards) add(ctx context.Context, from netip.Addr, to string) (string, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", join(from, 0))
	if err != nil {
		return "", fmt.Errorf("listening for %s: %w", to, err)
	}
	f.mu.Lock()
	f.listeners = append(f.listeners, listener)
	f.mu.Unlock()
	f.wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // closed
			}
			f.wg.Go(func() { f.serve(conn, to) })
		}
	})
	return listener.Addr().String(), nil
}

// serve copies both ways, each until its sender ends, so that a half-closed
// connection stays one.
func (f *forwards) serve(in net.Conn, to string) {
	out, err := (&net.Dialer{}).Dial("tcp", to)
	if err != nil {
		// As close to "connection refused" as it gets once accepted: a reset.
		reset(in)
		return
	}
	if !f.track(in, out) {
		return
	}
	defer f.untrack(in, out)
	var wg sync.WaitGroup
	wg.Go(func() { copyHalf(out, in) })
	wg.Go(func() { copyHalf(in, out) })
	wg.Wait()
}

// copyHalf passes an orderly end on as one, and an abrupt end as abrupt.
func copyHalf(to, from net.Conn) {
	if _, err := io.Copy(to, from); err != nil {
		reset(to)
		reset(from)
		return
	}
	if half, ok := to.(*net.TCPConn); ok {
		// It fails only if the other direction has closed both already.
		_ = half.CloseWrite()
	}
}

func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

func (f *forwards) track(conns ...net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, conn := range conns {
		if f.closed {
			reset(conn)
			continue
		}
		if f.open == nil {
			f.open = map[net.Conn]bool{}
		}
		f.open[conn] = true
	}
	return !f.closed
}

func (f *forwards) untrack(conns ...net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, conn := range conns {
		delete(f.open, conn)
		_ = conn.Close()
	}
}

func (f *forwards) close() {
	f.mu.Lock()
	f.closed = true
	for _, listener := range f.listeners {
		_ = listener.Close()
	}
	for conn := range f.open {
		reset(conn)
	}
	f.mu.Unlock()
	f.wg.Wait()
}
