// A peer to compare with: the Redis broker of the centrifuge library, with history and idempotency keys, without a server
// around it, as `townhall-load publish` drives the hall's. Many goroutines publish, since that is what fills the library's
// own pipeline. Prints one JSON object with the fields of `townhall-load publish --json` that both have.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/centrifugal/centrifuge"
)

var (
	redis    = flag.String("redis", "", "the Redis server, redis://host:port")
	rooms    = flag.Int("rooms", 1, "how many channels, in turn")
	inFlight = flag.Int("in-flight", 1024, "without -rate: how many messages are under way")
	rate     = flag.Float64("rate", 0, "messages a second, whatever Redis does")
	bytes    = flag.Int("bytes", 250, "bytes of an event, its JSON included")
	seconds  = flag.Float64("seconds", 10, "for how long messages are published")
	history  = flag.Int("history", 10_000, "messages kept a channel")
	watch    = flag.Int("watch", 0, "the Redis server's process")
)

// As the hall's defaults: --room-ttl and --dedupe.
const (
	roomTTL = 30 * 24 * time.Hour
	dedupe  = 10 * time.Minute
	tick    = 250 * time.Microsecond
)

type latencies struct {
	Count int     `json:"count"`
	P50   float64 `json:"p50"`
	P99   float64 `json:"p99"`
	Max   float64 `json:"max"`
}

type report struct {
	Pass         bool      `json:"pass"`
	Accepted     int       `json:"accepted"`
	Refused      int64     `json:"refused"`
	Stored       uint64    `json:"stored"`
	AcceptedPerS float64   `json:"accepted_per_s"`
	AcceptedMs   latencies `json:"accepted_ms"`
	OwnCPUUs     float64   `json:"own_cpu_us"`
	WatchedCPUUs float64   `json:"watched_cpu_us"`
}

// speaker publishes, and keeps what became of it.
type speaker struct {
	broker  *centrifuge.RedisBroker
	rest    string
	names   []string
	refused atomic.Int64
}

const head = `{"type":"message","id":"`

func newSpeaker() (*speaker, error) {
	node, err := centrifuge.New(centrifuge.Config{})
	if err != nil {
		return nil, err
	}
	shard, err := centrifuge.NewRedisShard(node, centrifuge.RedisShardConfig{Address: *redis})
	if err != nil {
		return nil, err
	}
	broker, err := centrifuge.NewRedisBroker(node, centrifuge.RedisBrokerConfig{Shards: []*centrifuge.RedisShard{shard}})
	if err != nil {
		return nil, err
	}
	from := `","from":{"id":"guest-000000000000000000000000","name":"load"},"text":"`
	s := &speaker{broker: broker, rest: from + strings.Repeat("x", *bytes-len(head)-36-len(from)-2) + `"}`}
	for n := range *rooms {
		s.names = append(s.names, fmt.Sprintf("load-%016x-%d", rand.Uint64(), n))
	}
	return s, nil
}

func (s *speaker) say(n int) (centrifuge.PublishResult, error) {
	high, low := rand.Uint64(), rand.Uint64()
	id := fmt.Sprintf("%08x-%04x-%04x-%04x-%012x", high>>32, high>>16&0xffff, high&0xffff, low>>48, low&0xffffffffffff)
	return s.broker.Publish(s.names[n%len(s.names)], []byte(head+id+s.rest), centrifuge.PublishOptions{
		HistorySize:         *history,
		HistoryTTL:          roomTTL,
		HistoryMetaTTL:      roomTTL,
		IdempotencyKey:      id,
		IdempotentResultTTL: dedupe,
	})
}

// measured returns how long it took from when the message was due.
func (s *speaker) measured(n int, due time.Time) (time.Duration, bool) {
	_, err := s.say(n)
	if err != nil {
		s.refused.Add(1)
	}
	return time.Since(due), err == nil
}

// flatOut has so many speakers, each of whom says the next message when its last one is accepted.
func (s *speaker) flatOut(until time.Time) []time.Duration {
	var everybody sync.WaitGroup
	took := make([][]time.Duration, *inFlight)
	for n := range *inFlight {
		everybody.Go(func() {
			for now := time.Now(); now.Before(until); now = time.Now() {
				if t, accepted := s.measured(n, now); accepted {
					took[n] = append(took[n], t)
				}
			}
		})
	}
	everybody.Wait()
	return slices.Concat(took...)
}

// onSchedule says a message whenever one is due.
func (s *speaker) onSchedule(began time.Time) []time.Duration {
	var underWay sync.WaitGroup
	count := int(*seconds * *rate)
	took := make([]time.Duration, count)
	at := func(n int) time.Time { return began.Add(time.Duration(float64(n) / *rate * float64(time.Second))) }
	for n := 0; n < count; {
		for now := time.Now(); n < count && !at(n).After(now); n++ {
			message := n
			underWay.Go(func() { took[message], _ = s.measured(message, at(message)) })
		}
		time.Sleep(tick)
	}
	underWay.Wait()
	return took
}

// stored is how many messages the channels hold, but for the first of each, which was not measured.
func (s *speaker) stored() (uint64, error) {
	var sum uint64
	for _, name := range s.names {
		_, top, err := s.broker.History(name, centrifuge.HistoryOptions{Filter: centrifuge.HistoryFilter{Limit: 0}})
		if err != nil {
			return 0, err
		}
		sum += top.Offset - 1
	}
	return sum, nil
}

// cpu is the processor time of a process so far; 0 where there is none.
func cpu(pid int) time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

func run() (*report, error) {
	s, err := newSpeaker()
	if err != nil {
		return nil, err
	}
	for n := range s.names {
		if _, err := s.say(n); err != nil {
			return nil, err
		}
	}
	own, watched, began := cpu(os.Getpid()), cpu(*watch), time.Now()
	var took []time.Duration
	if *rate > 0 {
		took = s.onSchedule(began)
	} else {
		took = s.flatOut(began.Add(time.Duration(*seconds * float64(time.Second))))
	}
	length := time.Since(began).Seconds()
	own, watched = cpu(os.Getpid())-own, cpu(*watch)-watched
	stored, err := s.stored()
	if err != nil {
		return nil, err
	}
	slices.Sort(took)
	accepted, refused := len(took), s.refused.Load()
	if accepted == 0 {
		return nil, fmt.Errorf("nothing was accepted")
	}
	quantile := func(q float64) float64 {
		return float64(took[min(accepted-1, int(q*float64(accepted)))].Microseconds()) / 1000
	}
	return &report{
		Pass:         refused == 0 && stored == uint64(accepted),
		Accepted:     accepted,
		Refused:      refused,
		Stored:       stored,
		AcceptedPerS: float64(accepted) / length,
		AcceptedMs:   latencies{accepted, quantile(0.5), quantile(0.99), quantile(1)},
		OwnCPUUs:     float64(own.Microseconds()) / float64(accepted),
		WatchedCPUUs: float64(watched.Microseconds()) / float64(accepted),
	}, nil
}

func main() {
	flag.Parse()
	result, err := run()
	if err != nil {
		log.Fatal(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		log.Fatal(err)
	}
}
