// A peer to compare with: a chat server with the centrifuge library, what one takes in Go for promises like the hall's. A
// room is a channel with history, positioning and recovery; messages are stored under their ids, so one that is sent
// again is stored once. It speaks the library's own JSON protocol through the library's own handler, and the load
// generator does so, too (--dialect centrifuge): there is no adapter, and so none that costs anything.
//
//	peer-centrifuge-server [-redis URL] ADDRESS
//
// With -redis several of them are one server, joined by the library's Redis broker; without, its memory broker does for one.
//
// To say something is an RPC, whose answer has the message's offset, as townhall.v1's `accepted` has. That is how the
// library's documentation has messages go through the application's own code; its `publish` answers without an offset. For
// each message, not for each delivery, it costs to read and write a few JSON fields. RPCs of a client are answered one
// after the other, so that a client's messages stay in order.
//
// What it does not promise: presence is off, ids are known only for a while (as long as the hall's), and a client whose
// position is lost has no more than `recovered: false` to go by.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"log"
	"net/http"
	"time"

	"github.com/centrifugal/centrifuge"
)

// As the hall's defaults: --history, --room-ttl and --dedupe.
const (
	history = 10_000
	roomTTL = 30 * 24 * time.Hour
	dedupe  = 10 * time.Minute
)

// say is what a client wants said.
type say struct {
	Room string `json:"room"`
	ID   string `json:"id"`
	Text string `json:"text"`
}

type person struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// message is what everybody in the room gets, beside its offset.
type message struct {
	At   int64  `json:"at"`
	Type string `json:"type"`
	ID   string `json:"id"`
	From person `json:"from"`
	Text string `json:"text"`
}

type accepted struct {
	Type   string `json:"type"`
	Room   string `json:"room"`
	ID     string `json:"id"`
	Epoch  string `json:"epoch"`
	Offset uint64 `json:"offset"`
}

func encode(reply any) []byte {
	bytes, err := json.Marshal(reply)
	if err != nil {
		log.Fatal(err) // these structs always have a JSON form
	}
	return bytes
}

// publish stores a message and has it told to everybody, at all nodes.
func publish(node *centrifuge.Node, data []byte, from person) ([]byte, error) {
	var s say
	if json.Unmarshal(data, &s) != nil || s.Room == "" || s.ID == "" {
		return nil, centrifuge.ErrorBadRequest
	}
	event := encode(message{time.Now().UnixMilli(), "message", s.ID, from, s.Text})
	stored, err := node.Publish(s.Room, event,
		centrifuge.WithHistory(history, roomTTL, roomTTL),
		centrifuge.WithIdempotencyKey(s.ID), centrifuge.WithIdempotentResultTTL(dedupe))
	if err != nil {
		return nil, err
	}
	return encode(accepted{"accepted", s.Room, s.ID, stored.Epoch, stored.Offset}), nil
}

// serve is a client's life.
func serve(node *centrifuge.Node, client *centrifuge.Client) {
	from := person{client.UserID(), string(client.Info())}
	client.OnSubscribe(func(_ centrifuge.SubscribeEvent, reply centrifuge.SubscribeCallback) {
		reply(centrifuge.SubscribeReply{Options: centrifuge.SubscribeOptions{EnablePositioning: true, EnableRecovery: true}}, nil)
	})
	client.OnRPC(func(call centrifuge.RPCEvent, reply centrifuge.RPCCallback) {
		if call.Method != "say" {
			reply(centrifuge.RPCReply{}, centrifuge.ErrorMethodNotFound)
			return
		}
		data, err := publish(node, call.Data, from)
		reply(centrifuge.RPCReply{Data: data}, err)
	})
}

// connecting: whatever has queued up for a client goes out in one frame, instead of 16 messages at most. Write delays of
// 1 to 5 ms and replies past the queue were tried, too, flat out and paced, and made no difference that could be told
// from noise.
func connecting(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
	return centrifuge.ConnectReply{MaxMessagesInFrame: -1}, nil
}

func newNode(url string) (*centrifuge.Node, error) {
	node, err := centrifuge.New(centrifuge.Config{
		LogLevel:   centrifuge.LogLevelError,
		LogHandler: func(entry centrifuge.LogEntry) { log.Println(entry.Message, entry.Fields) },
	})
	if err != nil {
		return nil, err
	}
	node.OnConnecting(connecting)
	node.OnConnect(func(client *centrifuge.Client) { serve(node, client) })
	if url == "" {
		return node, node.Run()
	}
	shard, err := centrifuge.NewRedisShard(node, centrifuge.RedisShardConfig{Address: url})
	if err != nil {
		return nil, err
	}
	broker, err := centrifuge.NewRedisBroker(node, centrifuge.RedisBrokerConfig{Shards: []*centrifuge.RedisShard{shard}})
	if err != nil {
		return nil, err
	}
	node.SetBroker(broker)
	return node, node.Run()
}

// guest says who a client is: whoever it says, as in a hall.
func guest(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := &centrifuge.Credentials{UserID: "guest-000000000000000000000000", Info: []byte(r.URL.Query().Get("name"))}
		next.ServeHTTP(w, r.WithContext(centrifuge.SetCredentials(r.Context(), who)))
	})
}

func main() {
	url := flag.String("redis", "", "the Redis that joins the nodes, redis://host:port")
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal("usage: peer-centrifuge-server [-redis URL] ADDRESS")
	}
	node, err := newNode(*url)
	if err != nil {
		log.Fatal(err)
	}
	// Buffers for writing are shared by all clients, and a client that is idle keeps a small stack.
	handler := centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{
		UseWriteBufferPool: true, ProcessCommandsOffReadLoop: true,
		CheckOrigin: func(*http.Request) bool { return true },
	})
	http.Handle("/connection/websocket", guest(handler))
	log.Fatal(http.ListenAndServe(flag.Arg(0), nil))
}
