package main

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/controllers"
	"github.com/keywright/keywright/controllers/lifecycle"
	"github.com/keywright/keywright/hack/e2e/stack"
)

// span says when something came about: not before after, not later than by.
type span struct{ after, by time.Time }

// history is what is true: all that came about, in order, and when. An epoch is
// the time between two restores of etcd.
type history struct {
	specs map[string]spec
	// fault is told of what must not be.
	fault func(format string, args ...any)

	mu    sync.Mutex
	epoch int
	// complete is up to when everything is in here.
	complete time.Time
	away     error // why etcd was not followed last
	signing  map[string]*signing
	keys     map[string]*key
	canaries map[int]canary
	// sung are the numbers that etcd took in this epoch, in order, and when.
	sung    []sung
	leaders map[string]bool
	holder  string
	changes int // of leaders
	// renewed is when the lease was last written, and unled for how long it was
	// not.
	renewed time.Time
	unled   time.Duration
	// withoutSecret are the times without a whole Secret keywright-hmac.
	withoutSecret []gap
}

// gap is a time without something; to is zero while it lasts.
type gap struct{ from, to time.Time }

// signing is what became of one SigningKey.
type signing struct {
	spec     spec
	mounts   []mount
	sequence int64 // of status
	highest  int64 // ever
	atLoss   int64 // highest when a restore took it away
	// versions are the keyrings that there were, for tampering.
	versions int
	rings    []storedRing
	active   string // of the last sound signer Secret
	// activated is when that began, and shaken when someone last damaged what
	// the controller knows of the keys, or revoked one.
	activated, shaken time.Time
	activations       int
}

type storedRing struct {
	raw    []byte
	active string
}

// mount is a version of a signer Secret; file is nil when there was none to
// sign with, or not one of the controller's.
type mount struct {
	span
	epoch int
	raw   []byte
	file  *signingFile
}

// key is what became of one key.
type key struct {
	id, of  string
	private any
	alg     keyset.Algorithm
	iss     string
	// shown is since when status has shown it, by epoch, and still did so at
	// the end of that.
	shown map[int]span
	// ends are what status said of its end, in order.
	ends []ending
	// rolledBack: a restore brought back a time at which it had no end.
	// endedBefore is the epoch that began so although it had had one; 0: none.
	rolledBack  bool
	endedBefore int
	// lostIn is the epoch that began without it; 0: none did.
	lostIn int
	// signed: it has been in the signer Secret. urgent: it took over from one
	// that was revoked or lost.
	signed, urgent bool
	// revoked is when someone first asked for that, and revokedIn since when
	// spec has said so, by epoch.
	revoked   map[int]time.Time
	revokedIn map[int]span
}

// ending is what status said of a key's end; zero: that it has none.
type ending struct {
	span
	epoch int
	until time.Time
}

// canary is when, and in which epoch, a number was about to be written.
type canary struct {
	epoch int
	at    time.Time
}

type sung struct {
	number int
	by     time.Time
}

func newHistory(specs []spec, fault func(string, ...any)) *history {
	h := &history{
		fault: fault, specs: map[string]spec{}, signing: map[string]*signing{}, keys: map[string]*key{},
		canaries: map[int]canary{}, leaders: map[string]bool{},
	}
	for _, s := range specs {
		h.specs[s.name] = s
		h.signing[s.name] = &signing{spec: s}
	}
	return h
}

const (
	skPrefix     = "/registry/keywright.dev/signingkeys/" + namespace + "/"
	secretPrefix = "/registry/secrets/" + namespace + "/"
	hmacPath     = "/registry/secrets/" + stack.Namespace + "/" + keyset.HMACSecretName
	leasePath    = "/registry/leases/" + stack.Namespace + "/keywright-controller"

	signerSuffix, keyringSuffix = "-signing", "-keyring"
)

// restart begins an epoch with what etcd holds. Only the first one begins with
// nothing before it.
func (h *history) restart(at span, pairs []pair) {
	h.mu.Lock()
	h.epoch++
	h.sung = nil
	if h.epoch > 1 {
		there := map[string]bool{}
		for _, p := range pairs {
			there[string(p.Key)] = true
		}
		for _, s := range h.signing {
			s.atLoss = s.highest
			s.shaken = at.by
			s.sequence = 0
		}
		for _, k := range h.keys {
			k.lostIn = h.epoch // until a status shows it
		}
		for path := range h.paths() {
			if !there[path] {
				pairs = append(pairs, pair{Key: []byte(path), deleted: true})
			}
		}
	}
	h.mu.Unlock()
	// The Secret with HS* keys comes last: whether it is whole depends on which
	// keys are active.
	isHMAC := func(p pair) int { return strings.Count(string(p.Key), hmacPath) }
	slices.SortStableFunc(pairs, func(a, b pair) int { return isHMAC(a) - isHMAC(b) })
	for _, p := range pairs {
		h.take(at, p, true)
	}
	h.upTo(at.by)
}

// paths are what etcd may hold that counts here.
func (h *history) paths() map[string]bool {
	out := map[string]bool{hmacPath: true}
	for name := range h.specs {
		out[secretPrefix+name+signerSuffix] = true
		out[secretPrefix+name+keyringSuffix] = true
	}
	return out
}

// see takes a change that came after all that was seen before.
func (h *history) see(p pair) {
	h.mu.Lock()
	at := span{after: h.complete, by: time.Now()}
	h.mu.Unlock()
	h.take(at, p, false)
}

// upTo says that all until then has been seen.
func (h *history) upTo(at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if at.After(h.complete) {
		h.complete = at
	}
}

func (h *history) noteAway(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.away = err
}

func (h *history) completeUpTo() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.complete
}

func (h *history) take(at span, p pair, first bool) {
	path := string(p.Key)
	switch {
	case strings.HasPrefix(path, skPrefix):
		sk := &v1alpha1.SigningKey{}
		if p.deleted || json.Unmarshal(p.Value, sk) != nil {
			h.fault("SigningKey %s is gone from etcd, or cannot be read", path)
			return
		}
		h.signingKey(at, sk, first)
	case strings.HasPrefix(path, secretPrefix):
		name := strings.TrimPrefix(path, secretPrefix)
		if of, ok := strings.CutSuffix(name, signerSuffix); ok {
			h.signer(at, of, decoded(p, &corev1.Secret{}))
		} else if of, ok := strings.CutSuffix(name, keyringSuffix); ok {
			h.keyring(of, decoded(p, &corev1.Secret{}))
		}
	case path == hmacPath:
		h.hmac(at, decoded(p, &corev1.Secret{}))
	case path == leasePath:
		if lease := decoded(p, &coordinationv1.Lease{}); lease != nil && lease.Spec.HolderIdentity != nil && *lease.Spec.HolderIdentity != "" {
			h.lead(*lease.Spec.HolderIdentity)
		}
	}
}

// decoded is what the API server stored; nil when it was deleted.
func decoded[T runtime.Object](p pair, into T) T {
	var none T
	if p.deleted {
		return none
	}
	if _, _, err := clientgoscheme.Codecs.UniversalDeserializer().Decode(p.Value, nil, into); err != nil {
		return none
	}
	return into
}

// renewEvery is how often a leader renews its lease.
const renewEvery = 2 * time.Second

func (h *history) lead(holder string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if holder != h.holder {
		h.changes++
	}
	if pause := time.Since(h.renewed); !h.renewed.IsZero() && pause > renewEvery+2*time.Second {
		h.unled += pause
	}
	h.renewed = time.Now()
	h.holder = holder
	h.leaders[holder] = true
}

func (h *history) signingKey(at span, sk *v1alpha1.SigningKey, first bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.signing[sk.Name]
	if s == nil {
		if jwks := sk.Spec.JWKS; jwks != nil && jwks.MaxAge != nil && !first {
			h.sung = append(h.sung, sung{int(jwks.MaxAge.Seconds()), at.by})
		}
		return
	}
	for _, r := range sk.Spec.RevokedKeys {
		if k := h.keys[r.KeyID]; k != nil {
			if _, known := k.revokedIn[h.epoch]; !known {
				k.revokedIn[h.epoch] = at
			}
		}
	}
	if sk.Status.Sequence < s.sequence {
		h.fault("%s: the sequence in status fell from %d to %d", sk.Name, s.sequence, sk.Status.Sequence)
	}
	s.sequence = sk.Status.Sequence
	s.highest = max(s.highest, s.sequence)
	there := map[string]bool{}
	for i := range sk.Status.Keys {
		there[sk.Status.Keys[i].KeyID] = true
		h.keyStatus(at, sk.Name, &sk.Status.Keys[i], first)
	}
	for _, k := range h.keys {
		if k.of == sk.Name && !there[k.id] {
			delete(k.shown, h.epoch) // gates may have dropped it
		}
	}
}

func (h *history) keyStatus(at span, of string, status *v1alpha1.KeyStatus, first bool) {
	k := h.keys[status.KeyID]
	if k == nil {
		if status.State == v1alpha1.KeyRevoked {
			return
		}
		k = &key{
			id: status.KeyID, of: of, alg: keyset.Algorithm(status.Algorithm), iss: status.Issuer,
			shown: map[int]span{}, revoked: map[int]time.Time{}, revokedIn: map[int]span{},
		}
		h.keys[k.id] = k
	}
	if status.State == v1alpha1.KeyRevoked {
		k.lostIn = 0
		return
	}
	if status.State == v1alpha1.KeyRetired && len(k.ends) == 0 {
		return // of before
	}
	if _, known := k.shown[h.epoch]; !known && status.State != v1alpha1.KeyRetired {
		k.shown[h.epoch] = at
	}
	k.lostIn = 0
	var until time.Time
	if status.VerifyUntil != nil {
		until = status.VerifyUntil.Time
	}
	if first && h.epoch > 1 && until.IsZero() {
		k.rolledBack = true
		if k.ended() {
			k.endedBefore = h.epoch
		}
	}
	if n := len(k.ends); n == 0 || k.ends[n-1].epoch != h.epoch || !k.ends[n-1].until.Equal(until) {
		k.ends = append(k.ends, ending{span: at, epoch: h.epoch, until: until})
	}
	if status.DeactivatedAt == nil || status.VerifyUntil == nil {
		return
	}
	longest := signerLag + maxTokenTTL + leeway + 2*clockSkew + 2*time.Second // rounded twice
	if held := signerLag + maxTokenTTL; status.VerifyUntil.Sub(status.DeactivatedAt.Time) > longest+held {
		h.fault("%s: key %s verifies for %s after its end", of, k.id, status.VerifyUntil.Sub(status.DeactivatedAt.Time))
	}
}

// ended says whether status has named an end of the key.
func (k *key) ended() bool {
	return slices.ContainsFunc(k.ends, func(e ending) bool { return !e.until.IsZero() })
}

// firstShown is when a status first showed the key.
func (k *key) firstShown() span {
	if len(k.shown) == 0 {
		return span{}
	}
	return k.shown[slices.Min(slices.Collect(maps.Keys(k.shown)))]
}

func (h *history) signer(at span, of string, secret *corev1.Secret) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.signing[of]
	if s == nil {
		return
	}
	m := mount{span: at, epoch: h.epoch}
	if secret != nil && secret.Data[tamperedEntry] == nil {
		m.raw = secret.Data[controllers.SigningJWKEntry]
		m.file, _ = parseSigningFile(m.raw) // what cannot be read cannot be signed with
		if m.file == nil {
			h.fault("%s: the controller wrote a signer Secret that cannot be read", of)
		}
	}
	s.mounts = append(s.mounts, m)
	if n := len(s.mounts); n > 200 {
		s.mounts = append([]mount(nil), s.mounts[n-100:]...)
	}
	if m.file == nil || m.file.Kid == s.active {
		return
	}
	k := h.keys[m.file.Kid]
	if k == nil {
		h.fault("%s: the signer Secret holds key %s, which no status has shown", of, m.file.Kid)
		return
	}
	if k.private == nil {
		k.private = m.file.private
	}
	if !k.signed {
		before := h.keys[s.active]
		k.urgent = before == nil || len(before.revoked) > 0 || !s.shaken.Before(s.activated)
		if waited := at.by.Sub(k.firstShown().after); !k.urgent && waited < verifierLag {
			h.fault("%s: key %s signs %s after it was published, and verifierLag is %s", of, k.id, waited, verifierLag)
		}
		k.signed = true
		s.activations++
	} else if k.ended() && !k.rolledBack {
		h.fault("%s: key %s signs again, which had ended", of, k.id)
	}
	s.active, s.activated = k.id, at.by
}

func (h *history) keyring(of string, secret *corev1.Secret) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.signing[of]
	if s == nil || secret == nil {
		return
	}
	s.versions++
	raw := secret.Data[controllers.KeyringEntry]
	ring, err := lifecycle.DecodeKeyring(raw)
	if err != nil {
		h.fault("%s: a keyring that cannot be read: %v", of, err)
		return
	}
	active := ring.Active()
	if active == nil {
		return
	}
	s.rings = append(s.rings, storedRing{raw: raw, active: active.ID})
	if n := len(s.rings); n > 60 {
		s.rings = append([]storedRing(nil), s.rings[n-40:]...)
	}
}

// hmac notes since when the Secret with HS* keys is not whole, and until when.
func (h *history) hmac(at span, secret *corev1.Secret) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := len(h.withoutSecret)
	broken := n > 0 && h.withoutSecret[n-1].to.IsZero()
	switch whole := h.hasSecrets(secret); {
	case !whole && !broken:
		h.withoutSecret = append(h.withoutSecret, gap{from: at.after})
	case whole && broken:
		h.withoutSecret[n-1].to = at.by
	}
}

func (h *history) hasSecrets(secret *corev1.Secret) bool {
	for name, s := range h.signing {
		if !s.spec.alg.Symmetric() || s.active == "" {
			continue
		}
		if secret == nil {
			return false
		}
		entry, err := keyset.DecodeHMACEntry(secret.Data[keyset.HMACEntryName(namespace, name)], namespace, name)
		if err != nil || entry.Secrets[s.active] == nil {
			return false
		}
	}
	return true
}

// shakes notes that someone is about to damage what the controller knows.
func (h *history) shakes(of string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.signing[of].shaken = time.Now()
}

// revokes notes that someone is about to revoke a key.
func (h *history) revokes(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if k := h.keys[id]; k != nil && k.revoked[h.epoch].IsZero() {
		k.revoked[h.epoch] = time.Now()
	}
}

// sings notes a number that is about to be written where gates show it: whoever
// shows it has seen all that was written before.
func (h *history) sings(number int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.canaries[number] = canary{epoch: h.epoch, at: time.Now()}
}

func (h *history) sang(number int) (canary, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c, ok := h.canaries[number]
	return c, ok
}

// behind is how long there has been a number that a gate does not show yet,
// which shows number.
func (h *history) behind(number int) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.sung {
		if s.number > number {
			return time.Since(s.by)
		}
	}
	return 0
}
