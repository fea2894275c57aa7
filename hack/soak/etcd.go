package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// etcd speaks to etcd by its JSON gateway: the truth is read beside the API
// server, which may be away, and in the order in which it came about.
type etcd struct {
	url  string
	http *http.Client
}

// pair is a key of etcd with its value; deleted: it has none any more.
type pair struct {
	Key     []byte `json:"key"`
	Value   []byte `json:"value"`
	Rev     int64  `json:"mod_revision,string"`
	deleted bool
}

type etcdHeader struct {
	Revision int64 `json:"revision,string"`
}

// everything is the range of all keys.
var everything = []byte{0}

func (e *etcd) call(ctx context.Context, method string, in, out any) error {
	raw, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("etcd %s: %w", method, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url+"/v3/"+method, bytes.NewReader(raw))
	if err != nil {
		return fmt.Errorf("etcd %s: %w", method, err)
	}
	resp, err := e.http.Do(req)
	if err != nil {
		return fmt.Errorf("etcd %s: %w", method, err)
	}
	defer resp.Body.Close() //nolint:errcheck // it is only read
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 500))
		return fmt.Errorf("etcd %s: status %d: %s", method, resp.StatusCode, text)
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("etcd %s: %w", method, err)
	}
	_, _ = io.Copy(io.Discard, resp.Body) // so that the connection is used again
	return nil
}

// put writes a key and gives the revision.
func (e *etcd) put(ctx context.Context, key, value string) (int64, error) {
	var out struct{ Header etcdHeader }
	err := e.call(ctx, "kv/put", map[string]any{"key": []byte(key), "value": []byte(value)}, &out)
	return out.Header.Revision, err
}

// all reads everything under a prefix, and the revision that it is of.
func (e *etcd) all(ctx context.Context, prefix string) ([]pair, int64, error) {
	end := []byte(prefix)
	end[len(end)-1]++
	var out struct {
		Header etcdHeader
		Kvs    []pair
	}
	err := e.call(ctx, "kv/range", map[string]any{"key": []byte(prefix), "range_end": end}, &out)
	return out.Kvs, out.Header.Revision, err
}

// watch gives each change from a revision on, in order, until ctx or the
// connection ends.
func (e *etcd) watch(ctx context.Context, from int64, each func(pair)) error {
	raw, err := json.Marshal(map[string]any{"create_request": map[string]any{"key": everything, "range_end": everything, "start_revision": from}})
	if err != nil {
		return fmt.Errorf("etcd watch: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url+"/v3/watch", bytes.NewReader(raw))
	if err != nil {
		return fmt.Errorf("etcd watch: %w", err)
	}
	resp, err := e.http.Do(req)
	if err != nil {
		return fmt.Errorf("etcd watch: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // it is only read
	for stream := json.NewDecoder(resp.Body); ; {
		var message struct {
			Result struct {
				Canceled bool
				Events   []struct {
					Type string
					Kv   pair
				}
			}
			Error json.RawMessage
		}
		if err := stream.Decode(&message); err != nil {
			return fmt.Errorf("etcd watch: %w", err)
		}
		if message.Error != nil || message.Result.Canceled {
			return fmt.Errorf("etcd watch: ended by etcd at revision %d: %s", from, message.Error)
		}
		for _, event := range message.Result.Events {
			event.Kv.deleted = event.Type == "DELETE"
			each(event.Kv)
		}
	}
}

// outgrow makes etcd forget what was before it was restored, as etcdutl does
// with --bump-revision and --mark-compacted: revisions go on above beyond, and
// whoever watches from an older one is told to list again.
func (e *etcd) outgrow(ctx context.Context, beyond int64) error {
	const atOnce = 16
	var wait sync.WaitGroup
	failed := make([]error, atOnce)
	highest := make([]int64, atOnce)
	for i := range atOnce {
		wait.Go(func() {
			for highest[i] <= beyond && failed[i] == nil {
				highest[i], failed[i] = e.put(ctx, fmt.Sprintf("%s%d", fillerPrefix, i), "")
			}
		})
	}
	wait.Wait()
	if err := errors.Join(failed...); err != nil {
		return err
	}
	var out struct{}
	return e.call(ctx, "kv/compaction", map[string]any{"revision": fmt.Sprint(beyond), "physical": true}, &out)
}

const (
	beatKey      = "soak/beat"
	fillerPrefix = "soak/filler-"
)

// follower reads etcd's history into a history, and proves by heartbeats of its
// own up to when it has seen everything.
type follower struct {
	etcd *etcd
	into *history

	mu      sync.Mutex
	beats   map[string]time.Time // when each was sent
	highest int64                // revision seen
	stop    func()
}

// begin reads what there is and goes on from there, until end.
func (f *follower) begin(ctx context.Context, after time.Time) error {
	pairs, revision, err := f.etcd.all(ctx, "/registry/")
	if err != nil {
		return err
	}
	f.into.restart(span{after: after, by: time.Now()}, pairs)
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	f.stop = func() { cancel(); running.Wait() }
	running.Go(func() { f.beat(ctx) })
	running.Go(func() {
		next := revision + 1
		for ctx.Err() == nil {
			err := f.etcd.watch(ctx, next, func(p pair) {
				next = p.Rev + 1 // those of one revision come together
				f.see(p)
			})
			if ctx.Err() == nil {
				f.into.noteAway(err)
				sleep(ctx, 50*time.Millisecond)
			}
		}
	})
	return nil
}

// end stops following, because this history of etcd has ended.
func (f *follower) end() {
	if f.stop != nil {
		f.stop()
		f.stop = nil
	}
}

func (f *follower) see(p pair) {
	f.mu.Lock()
	f.highest = max(f.highest, p.Rev)
	f.mu.Unlock()
	if string(p.Key) != beatKey {
		f.into.see(p)
		return
	}
	f.mu.Lock()
	sent, ok := f.beats[string(p.Value)]
	delete(f.beats, string(p.Value))
	f.mu.Unlock()
	if ok {
		f.into.upTo(sent)
	}
}

// beat writes a heartbeat every so often. What was written before one was sent
// has been seen when the heartbeat is.
func (f *follower) beat(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		sent := time.Now()
		name := fmt.Sprintf("%d.%d", sent.UnixNano(), n)
		f.mu.Lock()
		f.beats[name] = sent
		f.mu.Unlock()
		limited, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, _ = f.etcd.put(limited, beatKey, name) // one that fails may come later, or never
		cancel()
		sleep(ctx, 50*time.Millisecond-time.Since(sent))
	}
}

func (f *follower) highestRevision() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.highest
}

// sleep waits, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
