package webhook

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/keywright/keywright/webhook/authz"
)

// metrics tells what is counted elsewhere, when it is asked: a decision pays
// for one addition and one histogram. Labels name policies that exist and
// reasons from a fixed list; decisions about other policies have an empty
// policy.
type metrics struct {
	store   *authz.Store
	gate    *authz.Gate
	feed    *feed
	contact *contact
	clock   func() time.Time

	admission   *admission
	connections *connections
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("keywright_gate_"+name, help, labels, nil)
}

var (
	decisionsDesc = desc("decisions_total", "Decisions by policy (empty: one that does not exist, or none was looked for), result (allow, deny) and reason of denial.",
		"policy_namespace", "policy", "result", "reason")
	lookupsDesc      = desc("cache_lookups_total", "Tokens looked up by result: verified before, refused before, or miss.", "result")
	tokensDesc       = desc("cache_tokens", "Tokens remembered, about, by kind: verified or refused.", "kind")
	busyDesc         = desc("requests_in_progress", "Requests that are being answered.")
	openDesc         = desc("connections", "Connections of callers that are open.")
	closedDesc       = desc("connections_closed_total", "Connections that were closed unheard because there were too many.")
	panicsDesc       = desc("internal_errors_total", "Requests denied because of a fault of this program.")
	signingKeysDesc  = desc("signing_keys", "SigningKeys loaded.")
	keysDesc         = desc("keys", "Keys that verify now.")
	problemsDesc     = desc("signing_keys_degraded", "SigningKeys of which something could not be loaded.")
	policiesDesc     = desc("policies", "AccessPolicies loaded.")
	notReadyDesc     = desc("policies_not_ready", "AccessPolicies that deny everything because they do not compile or refer to a SigningKey that is not there for them.")
	originsDesc      = desc("remote_issuers", "Issuers of others whose keys policies ask for, by whether they are loaded (true, false).", "loaded")
	keySetAgeDesc    = desc("key_set_age_seconds", "Time since any key set last changed.")
	contactAgeDesc   = desc("api_contact_age_seconds", "Time since the API server was last heard: about a minute at most while the gate is in step, absent before the first time.")
	syncedDesc       = desc("synced", "Whether everything there was at the start is loaded.")
	descriptionsList = []*prometheus.Desc{
		decisionsDesc, lookupsDesc, tokensDesc, busyDesc, openDesc, closedDesc, panicsDesc, signingKeysDesc, keysDesc, problemsDesc,
		policiesDesc, notReadyDesc, originsDesc, keySetAgeDesc, contactAgeDesc, syncedDesc,
	}
)

// Describe implements prometheus.Collector.
func (m *metrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range descriptionsList {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, n uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	decisions := func(ref authz.Ref, c *authz.Counters) {
		if n := c.Allowed(); n > 0 {
			counter(decisionsDesc, n, ref.Namespace, ref.Name, "allow", "")
		}
		for reason, n := range c.Denied {
			counter(decisionsDesc, n, ref.Namespace, ref.Name, "deny", reason)
		}
	}

	notReady := 0
	for ref, state := range m.store.Policies() {
		if state.NotReady != nil {
			notReady++
		}
		decisions(ref, state.Counters)
	}
	stats := m.gate.Stats()
	decisions(authz.Ref{}, stats.Unknown)
	counter(lookupsDesc, stats.Hits, "verified")
	counter(lookupsDesc, stats.BadHits, "refused")
	counter(lookupsDesc, stats.Misses, "miss")
	gauge(tokensDesc, float64(stats.Tokens), "verified")
	gauge(tokensDesc, float64(stats.BadTokens), "refused")
	gauge(busyDesc, float64(m.admission.busy.Load()))
	gauge(openDesc, float64(m.connections.open.Load()))
	counter(closedDesc, m.connections.closed.Load())
	counter(panicsDesc, stats.Panics)

	now := m.clock()
	keys, degraded := 0, 0
	for _, known := range m.store.AllKeys() {
		if len(known.Problems) > 0 {
			degraded++
		}
		for _, k := range known.Set.Keys() {
			if k.ValidAt(now) {
				keys++
			}
		}
	}
	signingKeys, policies := m.store.Size()
	gauge(signingKeysDesc, float64(signingKeys))
	gauge(keysDesc, float64(keys))
	gauge(problemsDesc, float64(degraded))
	gauge(policiesDesc, float64(policies))
	gauge(notReadyDesc, float64(notReady))
	loaded, missing := m.store.OriginsLoaded()
	gauge(originsDesc, float64(loaded), "true")
	gauge(originsDesc, float64(missing), "false")
	if changed := m.feed.changed.Load(); changed != 0 {
		gauge(keySetAgeDesc, now.Sub(time.Unix(0, changed)).Seconds())
	}
	if age, ok := m.contact.age(); ok {
		gauge(contactAgeDesc, age.Seconds())
	}
	synced := 0.0
	if m.feed.hasSynced() {
		synced = 1
	}
	gauge(syncedDesc, synced)
}

// newDuration is the histogram of how long answers take.
func newDuration() prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "keywright_gate_decision_duration_seconds",
		Help:    "Time from a request that was read to its answer.",
		Buckets: []float64{2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 5e-3, 2.5e-2, 0.1, 1},
	})
}

// newRegistry has all that the process tells.
func newRegistry(all ...prometheus.Collector) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	r.MustRegister(all...)
	return r
}
