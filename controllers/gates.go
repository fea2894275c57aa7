package controllers

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keywright/keywright/api/fetch"
	"github.com/keywright/keywright/api/keyset"
)

// Bounds of what is asked of gates and documents.
const (
	askTimeout   = 2 * time.Second
	maxAtOnce    = 16
	firstPause   = time.Second
	longestPause = time.Minute
)

// GateClient asks gates which keys they have loaded.
type GateClient struct {
	// Addresses of gates, host:port.
	Addresses []string
	// Cache has the EndpointSlices of Service in Namespace, whose port
	// "keysets" is asked; nil: only Addresses are.
	Cache              client.Reader
	Namespace, Service string
	// Certificate is what both sides show and demand.
	Certificate *GateCertificate
	// Now is the clock.
	Now func() time.Time

	pauses pauses
	once   sync.Once
	client *http.Client
}

// Ask asks every ready gate about one SigningKey.
func (c *GateClient) Ask(ctx context.Context, name types.NamespacedName) []GateAnswer {
	c.once.Do(func() {
		c.client = &http.Client{
			Timeout:       askTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Transport: &http.Transport{
				DialTLSContext:      c.dial,
				MaxIdleConnsPerHost: 4,
				IdleConnTimeout:     time.Minute,
			},
		}
	})
	addresses, err := c.ready(ctx)
	if err != nil {
		return []GateAnswer{{Name: "of Service " + c.Service, Err: err}}
	}
	answers := make([]GateAnswer, len(addresses))
	var wait sync.WaitGroup
	slots := make(chan struct{}, maxAtOnce)
	for i, address := range addresses {
		wait.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			answers[i] = GateAnswer{Name: address}
			answers[i].Err = c.pauses.try(address, c.Now, func() (err error) {
				answers[i].Report, err = c.ask(ctx, address, name)
				return err
			})
		})
	}
	wait.Wait()
	return answers
}

// ready lists the addresses of the gates that are ready, sorted.
func (c *GateClient) ready(ctx context.Context) ([]string, error) {
	out := slices.Clone(c.Addresses)
	if c.Cache != nil {
		list := &discoveryv1.EndpointSliceList{}
		if err := c.Cache.List(ctx, list, client.InNamespace(c.Namespace), client.MatchingLabels{discoveryv1.LabelServiceName: c.Service}); err != nil {
			return nil, fmt.Errorf("listing EndpointSlices of Service %s: %w", c.Service, err)
		}
		for i := range list.Items {
			out = append(out, readyIn(&list.Items[i])...)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

func readyIn(slice *discoveryv1.EndpointSlice) (out []string) {
	for _, port := range slice.Ports {
		if port.Name == nil || *port.Name != keysetsPort || port.Port == nil {
			continue
		}
		for _, endpoint := range slice.Endpoints {
			if endpoint.Conditions.Ready != nil && !*endpoint.Conditions.Ready {
				continue
			}
			for _, address := range endpoint.Addresses {
				out = append(out, net.JoinHostPort(address, strconv.Itoa(int(*port.Port))))
			}
		}
	}
	return out
}

// keysetsPort is the port of the gates' Service on which they are asked.
const keysetsPort = "keysets"

func (c *GateClient) ask(ctx context.Context, address string, name types.NamespacedName) (keyset.Report, error) {
	target := url.URL{Scheme: "https", Host: address, Path: keyset.KeysetsPath + name.Namespace + "/" + name.Name}
	raw, _, status, err := fetch.Document(ctx, c.client, target.String())
	switch {
	case err != nil:
		return keyset.Report{}, err
	case status == http.StatusNotFound:
		return keyset.Report{}, errNotLoaded
	case status != http.StatusOK:
		return keyset.Report{}, fmt.Errorf("answers with status %d", status)
	}
	return keyset.DecodeReport(raw)
}

func (c *GateClient) dial(ctx context.Context, network, address string) (net.Conn, error) {
	config, err := c.Certificate.client()
	if err != nil {
		return nil, err
	}
	return (&tls.Dialer{Config: config}).DialContext(ctx, network, address)
}

// DocumentClient fetches public JWK Sets, and leaves those alone for a while
// that it could not get.
type DocumentClient struct {
	// Client fetches.
	Client fetch.Client
	// Now is the clock.
	Now func() time.Time

	pauses pauses
}

// Fetch gets the keys that a URL shows.
func (c *DocumentClient) Fetch(ctx context.Context, target string) (keyset.Document, error) {
	var doc keyset.Document
	err := c.pauses.try(target, c.Now, func() error {
		raw, _, err := c.Client.Get(ctx, target)
		if err != nil {
			return err
		}
		if json.Unmarshal(raw, &doc) != nil {
			return errors.New("is not a JWK Set")
		}
		return nil
	})
	return doc, err
}

// pauses leave alone for a while what has failed, longer each time.
type pauses struct {
	mu sync.Mutex
	of map[string]pause
}

type pause struct {
	until  time.Time
	length time.Duration
	err    error
}

// try runs do unless name is paused, and then gives the last error.
func (p *pauses) try(name string, now func() time.Time, do func() error) error {
	p.mu.Lock()
	last, failed := p.of[name]
	p.mu.Unlock()
	if failed && now().Before(last.until) {
		return last.err
	}
	err := do()
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil || errors.Is(err, errNotLoaded) {
		delete(p.of, name)
		return err
	}
	if p.of == nil || len(p.of) > 10_000 { // whoever is gone is not asked for again
		p.of = map[string]pause{}
	}
	length := min(max(firstPause, 2*last.length), longestPause)
	p.of[name] = pause{until: now().Add(length), length: length, err: err}
	return err
}
