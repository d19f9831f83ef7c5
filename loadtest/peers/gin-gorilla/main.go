// A peer to compare with: a chat room as tutorials of gin and gorilla/websocket have it. A route upgrades, a goroutine
// for each client reads, and a broadcaster, one goroutine, takes messages from a buffered channel and writes each to all
// clients of its map in turn, under a lock. It speaks as much of townhall.v1 as the load generator needs.
//
//	peer-gin-gorilla [-redis URL] ADDRESS
//
// What it does not promise: it stores nothing, resumes nobody and knows no id again. There is one room, whatever it is
// called. Writes have no deadline, so a client that stops reading stops everybody as soon as its socket is full; and an
// array of bytes is framed anew for each client.
//
// With -redis several of them are one room, joined by a channel of Redis, whose order all nodes get alike. So each node
// counts what it hears there and has the same offsets as the others, if all run before the first message; Redis keeps
// nothing and numbers nothing. A message is accepted when it has come back from Redis. A node that loses its connection
// to Redis has lost, for good, what is said until it is back, and its count with it.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/gorilla/websocket"
	"github.com/redis/go-redis/v9"
)

// Between nodes.
const channel = "gin-gorilla"

var upgrader = websocket.Upgrader{
	ReadBufferSize:  1024,
	WriteBufferSize: 1024,
	Subprotocols:    []string{"townhall.v1"},
	CheckOrigin:     func(*http.Request) bool { return true },
}

// command is what a client says.
type command struct {
	Type string          `json:"type"`
	Room string          `json:"room"`
	ID   string          `json:"id"`
	Text string          `json:"text"`
	Ref  json.RawMessage `json:"ref,omitempty"`
}

type person struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// message is what everybody in the room gets.
type message struct {
	Room   string `json:"room"`
	Offset uint64 `json:"offset"`
	At     int64  `json:"at"`
	Type   string `json:"type"`
	ID     string `json:"id"`
	From   person `json:"from"`
	Text   string `json:"text"`
}

// answer is joined and accepted.
type answer struct {
	Type    string          `json:"type"`
	Room    string          `json:"room"`
	ID      string          `json:"id,omitempty"`
	Epoch   string          `json:"epoch"`
	Offset  uint64          `json:"offset"`
	Backlog uint64          `json:"backlog"`
	Ref     json.RawMessage `json:"ref,omitempty"`
}

// said is a message on its way; conn is nil at the other nodes.
type said struct {
	conn    *websocket.Conn
	From    person  `json:"from"`
	Command command `json:"command"`
}

func encode(reply any) []byte {
	bytes, err := json.Marshal(reply)
	if err != nil {
		log.Fatal(err) // these structs always have a JSON form
	}
	return bytes
}

type broadCaster struct {
	msgChan chan said
	lock    sync.Mutex
	// Guarded by the lock, as are all writes to the sockets.
	wsConns map[net.Addr]*websocket.Conn
	offset  uint64
}

var broadcaster = &broadCaster{msgChan: make(chan said, 10), wsConns: make(map[net.Addr]*websocket.Conn)}

// add lets a client in, from the offset on that it is told.
func (b *broadCaster) add(conn *websocket.Conn, join command) error {
	b.lock.Lock()
	defer b.lock.Unlock()
	b.wsConns[conn.RemoteAddr()] = conn
	joined := answer{Type: "joined", Room: join.Room, Epoch: "peer", Offset: b.offset, Ref: join.Ref}
	return conn.WriteMessage(websocket.TextMessage, encode(joined))
}

func (b *broadCaster) del(conn *websocket.Conn) {
	b.lock.Lock()
	defer b.lock.Unlock()
	delete(b.wsConns, conn.RemoteAddr())
}

func (b *broadCaster) run() {
	for {
		b.say(<-b.msgChan)
	}
}

func (b *broadCaster) say(say said) {
	b.lock.Lock()
	defer b.lock.Unlock()
	b.offset++
	c := say.Command
	event := encode(message{c.Room, b.offset, time.Now().UnixMilli(), "message", c.ID, say.From, c.Text})
	for _, conn := range b.wsConns {
		if err := conn.WriteMessage(websocket.TextMessage, event); err != nil {
			log.Println("Failed sending to: ", conn.RemoteAddr(), " | Err: ", err)
		}
	}
	if say.conn != nil && b.wsConns[say.conn.RemoteAddr()] != nil {
		accepted := answer{Type: "accepted", Room: c.Room, ID: c.ID, Epoch: "peer", Offset: b.offset, Ref: c.Ref}
		say.conn.WriteMessage(websocket.TextMessage, encode(accepted)) // if this fails, reading does, too
	}
}

// nodes is what joins this node to others; nil if it is alone.
type nodes struct {
	redis *redis.Client
	// By its id: who said what has not come back from Redis.
	speaks sync.Map
}

var others *nodes

// speak hands a message to the broadcaster, by way of Redis where there are other nodes.
func speak(say said) error {
	if others == nil {
		broadcaster.msgChan <- say
		return nil
	}
	others.speaks.Store(say.Command.ID, say.conn)
	return others.redis.Publish(context.Background(), channel, encode(say)).Err()
}

// join makes this one of several nodes. When it returns, whatever is said at any of them is heard here.
func join(url string) (*nodes, error) {
	options, err := redis.ParseURL(url)
	if err != nil {
		return nil, err
	}
	n := &nodes{redis: redis.NewClient(options)}
	subscription := n.redis.Subscribe(context.Background(), channel)
	if _, err := subscription.Receive(context.Background()); err != nil {
		return nil, err
	}
	go n.relay(subscription.Channel())
	return n, nil
}

// relay hands the broadcaster what all nodes say, in Redis' order.
func (n *nodes) relay(messages <-chan *redis.Message) {
	for message := range messages {
		var say said
		if json.Unmarshal([]byte(message.Payload), &say) != nil {
			continue // not of a node
		}
		if speaker, ours := n.speaks.LoadAndDelete(say.Command.ID); ours {
			say.conn = speaker.(*websocket.Conn)
		}
		broadcaster.msgChan <- say
	}
}

func webSocket(ctx *gin.Context) {
	conn, err := upgrader.Upgrade(ctx.Writer, ctx.Request, nil)
	if err != nil {
		return // Upgrade has answered
	}
	go wsListener(conn, person{"guest-000000000000000000000000", ctx.Query("name")})
}

func wsListener(conn *websocket.Conn, from person) {
	defer func() {
		broadcaster.del(conn)
		conn.Close()
	}()
	// Nobody else writes to it yet.
	err := conn.WriteMessage(websocket.TextMessage, encode(gin.H{"type": "welcome", "beat": 0}))
	for err == nil {
		var bytes []byte
		if _, bytes, err = conn.ReadMessage(); err != nil {
			return
		}
		var c command
		if err = json.Unmarshal(bytes, &c); err != nil {
			return
		}
		switch c.Type {
		case "join":
			err = broadcaster.add(conn, c)
		case "say":
			err = speak(said{conn, from, c})
		}
	}
}

func main() {
	url := flag.String("redis", "", "the Redis that joins the nodes, redis://host:port")
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal("usage: peer-gin-gorilla [-redis URL] ADDRESS")
	}
	go broadcaster.run()
	if *url != "" {
		var err error
		if others, err = join(*url); err != nil {
			log.Fatal(err)
		}
	}
	gin.SetMode(gin.ReleaseMode)
	root := gin.New()
	root.GET("/ws", webSocket)
	log.Fatal(root.Run(flag.Arg(0)))
}
