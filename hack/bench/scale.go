package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
)

// namespaces that many objects are in.
const namespaces = 100

// scale starts a gate with many SigningKeys, each with two keys and an
// AccessPolicy, and revokes keys while it is asked. The API server is a
// stand-in: what a real one adds is the time to store a revocation, about 10
// ms, and it sends many objects more slowly.
func (b *bench) scale(ctx context.Context) ([]figure, error) {
	var keys []v1alpha1.SigningKey
	var policies []v1alpha1.AccessPolicy
	var active []*signer
	var in []string
	for i := range b.objects {
		namespace, name := "team-"+strconv.Itoa(i%namespaces), "orders-"+strconv.Itoa(i)
		if i < namespaces {
			in = append(in, namespace)
		}
		var signers [2]*signer
		for k := range signers {
			var err error
			if signers[k], err = newSigner(keyset.ES256); err != nil {
				return nil, err
			}
		}
		sk, err := signingKey(namespace, name, signers[:]...)
		if err != nil {
			return nil, err
		}
		keys, policies, active = append(keys, sk), append(policies, accessPolicy(namespace, name)), append(active, signers[0])
	}
	api, err := startCluster(keys, policies, in...)
	if err != nil {
		return nil, err
	}
	defer api.Close()
	began := time.Now()
	s, err := b.start(ctx, roleGate, append(b.profileFlag("many-objects"), "-api", api.URL)...)
	if err != nil {
		return nil, err
	}
	ready := time.Since(began).Seconds()
	delays := make([]float64, min(b.revocations, b.objects))
	for i := range delays {
		which := i * b.objects / len(delays)
		delay, err := revoke(ctx, api, s.address, &keys[which], active[which])
		if err != nil {
			return nil, fmt.Errorf("revoking a key of %s/%s: %w", keys[which].Namespace, keys[which].Name, err)
		}
		delays[i] = float64(delay.Microseconds()) / 1000
	}
	now, peak, err := resident(s.cmd.Process.Pid)
	if err != nil {
		return nil, err
	}
	slices.Sort(delays)
	return []figure{
		{what: "peak of resident memory", unit: "MiB", value: mebi(peak), low: mebi(now), high: mebi(peak), limit: 250},
		{what: "start to ready", unit: "s", value: ready, low: ready, high: ready, limit: 20},
		{what: fmt.Sprintf("revocation to refusal, p99 of %d", len(delays)), unit: "ms", value: percentile(delays, 99), low: delays[0], high: delays[len(delays)-1], limit: 250},
	}, nil
}

// revoke takes out the active key of sk, whose tokens pass until then, and says
// how long after it was told the gate refuses one.
func revoke(ctx context.Context, api *cluster, address string, sk *v1alpha1.SigningKey, s *signer) (time.Duration, error) {
	raw, err := s.sign(time.Now(), "before")
	if err != nil {
		return 0, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/auth/nginx/%s/%s?host=shop.example.com", address, sk.Namespace, sk.Name), nil)
	if err != nil {
		return 0, err
	}
	request.Header = http.Header{
		"X-Original-Url": {"https://shop.example.com/orders/1234"}, "X-Original-Method": {"GET"},
		"Authorization": {"Bearer " + raw},
	}
	ask := func() (int, error) {
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return 0, err
		}
		return response.StatusCode, response.Body.Close()
	}
	if status, err := ask(); err != nil || status != http.StatusOK {
		return 0, errors.Join(fmt.Errorf("before: got %d, want 200", status), err)
	}
	sk.Generation++
	sk.ResourceVersion = strconv.FormatInt(sk.Generation, 10)
	sk.Spec.RevokedKeys = append(sk.Spec.RevokedKeys, v1alpha1.RevokedKey{KeyID: s.id})
	began := time.Now()
	if err := api.change(ctx, sk); err != nil {
		return 0, err
	}
	for {
		status, err := ask()
		took := time.Since(began)
		switch {
		case err != nil:
			return 0, err
		case status == http.StatusUnauthorized:
			return took, nil
		case status != http.StatusOK:
			return 0, fmt.Errorf("got %d, want 401", status)
		case took > patience:
			return 0, fmt.Errorf("not refused after %s", took)
		}
	}
}

// resident gives what a process has in memory now and had at its peak, in
// bytes.
func resident(pid int) (now, peak int64, err error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, fmt.Errorf("reading what is resident: %w", err)
	}
	for line := range strings.Lines(string(raw)) {
		name, rest, _ := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		if (name != "VmRSS" && name != "VmHWM") || len(fields) == 0 {
			continue
		}
		kib, err := strconv.ParseInt(fields[0], 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("reading what is resident: %w", err)
		}
		if name == "VmRSS" {
			now = kib << 10
		} else {
			peak = kib << 10
		}
	}
	return now, peak, nil
}

func mebi(n int64) float64 { return float64(n) / (1 << 20) }

// percentile of values in order: the least one that p of a hundred do not
// exceed.
func percentile(sorted []float64, p int) float64 {
	return sorted[(len(sorted)*p+99)/100-1]
}
