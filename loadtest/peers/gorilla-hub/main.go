// A peer to compare with: one room in the shape of gorilla/websocket's chat example. A hub goroutine owns the clients and
// hands each message to a channel of each; every client has a read pump and a write pump, and the write pump puts what has
// queued up into one frame, with line breaks between. It speaks as much of townhall.v1 as the load generator needs, stores
// nothing and resumes nobody, so it does less for each message than a hall.
//
//	peer-gorilla-hub [-redis URL] ADDRESS [QUEUE]
//
// With -redis several of them are one room, joined by a channel of Redis, whose order all nodes get alike. So each node
// counts what it hears there and has the same offsets as the others, if all run before the first message; Redis keeps
// nothing and numbers nothing. A message is accepted when it has come back from Redis. A node that loses its connection
// to Redis has lost, for good, what is said until it is back, and its count with it.
//
// QUEUE is how many messages may wait for a client, 256 as in the example. Whoever is slower is dropped: for a benchmark that
// must not lose, say more than its publishers ever have under way together.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"log"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"github.com/redis/go-redis/v9"
)

const (
	// As in the example: how long a write may take, and when a silent client is asked whether it is still there.
	writeWait  = 10 * time.Second
	pongWait   = 60 * time.Second
	pingPeriod = pongWait * 9 / 10
	maxMessage = 64 * 1024
	// Between nodes.
	channel = "gorilla-hub"
)

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

type joined struct {
	Type    string          `json:"type"`
	Room    string          `json:"room"`
	Epoch   string          `json:"epoch"`
	Offset  uint64          `json:"offset"`
	Backlog uint64          `json:"backlog"`
	Ref     json.RawMessage `json:"ref,omitempty"`
}

type accepted struct {
	Type   string          `json:"type"`
	Room   string          `json:"room"`
	ID     string          `json:"id"`
	Epoch  string          `json:"epoch"`
	Offset uint64          `json:"offset"`
	Ref    json.RawMessage `json:"ref,omitempty"`
}

func encode(reply any) []byte {
	bytes, err := json.Marshal(reply)
	if err != nil {
		log.Fatal(err) // these structs always have a JSON form
	}
	return bytes
}

// said is a command and who gave it; client is nil at the other nodes.
type said struct {
	client  *client
	From    person  `json:"from"`
	Command command `json:"command"`
}

// hub owns the set of clients and the order of the messages.
type hub struct {
	clients    map[*client]bool
	register   chan said
	unregister chan *client
	broadcast  chan said
	offset     uint64
	queue      int
	// With other nodes: their Redis, and by its id who said what has not come back from there.
	redis  *redis.Client
	speaks sync.Map
}

func (h *hub) run() {
	for {
		select {
		case join := <-h.register:
			h.clients[join.client] = true
			h.hand(join.client, encode(joined{"joined", join.Command.Room, "peer", h.offset, 0, join.Command.Ref}))
		case c := <-h.unregister:
			h.drop(c)
		case say := <-h.broadcast:
			h.say(say)
		}
	}
}

func (h *hub) say(say said) {
	h.offset++
	c := say.Command
	event := encode(message{c.Room, h.offset, time.Now().UnixMilli(), "message", c.ID, say.From, c.Text})
	for client := range h.clients {
		h.hand(client, event)
	}
	h.hand(say.client, encode(accepted{"accepted", c.Room, c.ID, "peer", h.offset, c.Ref}))
}

// speak hands a message to the hub, by way of Redis where there are other nodes.
func (h *hub) speak(say said) error {
	if h.redis == nil {
		h.broadcast <- say
		return nil
	}
	h.speaks.Store(say.Command.ID, say.client)
	return h.redis.Publish(context.Background(), channel, encode(say)).Err()
}

// join makes the hub one of several nodes. When it returns, whatever is said at any of them is heard here.
func (h *hub) join(url string) error {
	options, err := redis.ParseURL(url)
	if err != nil {
		return err
	}
	h.redis = redis.NewClient(options)
	subscription := h.redis.Subscribe(context.Background(), channel)
	if _, err := subscription.Receive(context.Background()); err != nil {
		return err
	}
	go h.relay(subscription.Channel(redis.WithChannelSize(4096)))
	return nil
}

// relay hands the hub what all nodes say, in Redis' order.
func (h *hub) relay(messages <-chan *redis.Message) {
	for message := range messages {
		var say said
		if json.Unmarshal([]byte(message.Payload), &say) != nil {
			continue // not of a node
		}
		if speaker, ours := h.speaks.LoadAndDelete(say.Command.ID); ours {
			say.client = speaker.(*client)
		}
		h.broadcast <- say
	}
}

// hand never waits: a client whose queue is full is dropped.
func (h *hub) hand(c *client, bytes []byte) {
	if !h.clients[c] {
		return
	}
	select {
	case c.send <- bytes:
	default:
		h.drop(c)
	}
}

func (h *hub) drop(c *client) {
	if h.clients[c] {
		delete(h.clients, c)
		close(c.send)
	}
}

type client struct {
	hub    *hub
	conn   *websocket.Conn
	send   chan []byte
	person person
}

func (c *client) readPump() {
	defer func() {
		c.hub.unregister <- c
		c.conn.Close()
	}()
	c.conn.SetReadLimit(maxMessage)
	c.conn.SetReadDeadline(time.Now().Add(pongWait))
	c.conn.SetPongHandler(func(string) error { return c.conn.SetReadDeadline(time.Now().Add(pongWait)) })
	for {
		_, bytes, err := c.conn.ReadMessage()
		if err != nil {
			return
		}
		var command command
		if json.Unmarshal(bytes, &command) != nil {
			return
		}
		switch command.Type {
		case "join":
			c.hub.register <- said{c, c.person, command}
		case "say":
			if c.hub.speak(said{c, c.person, command}) != nil {
				return
			}
		}
	}
}

func (c *client) writePump() {
	ticker := time.NewTicker(pingPeriod)
	defer func() {
		ticker.Stop()
		c.conn.Close()
	}()
	for {
		select {
		case bytes, open := <-c.send:
			c.conn.SetWriteDeadline(time.Now().Add(writeWait))
			if !open {
				c.conn.WriteMessage(websocket.CloseMessage, nil)
				return
			}
			if c.write(bytes) != nil {
				return
			}
		case <-ticker.C:
			c.conn.SetWriteDeadline(time.Now().Add(writeWait))
			if c.conn.WriteMessage(websocket.PingMessage, nil) != nil {
				return
			}
		}
	}
}

// write sends a message, and in the same frame whatever has queued up behind it.
func (c *client) write(bytes []byte) error {
	w, err := c.conn.NextWriter(websocket.TextMessage)
	if err != nil {
		return err
	}
	w.Write(bytes)
	for range len(c.send) {
		more, open := <-c.send
		if !open {
			break
		}
		w.Write([]byte{'\n'})
		w.Write(more)
	}
	return w.Close()
}

func (h *hub) serve(w http.ResponseWriter, r *http.Request) {
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // Upgrade has answered
	}
	welcome := map[string]any{"type": "welcome", "beat": 0}
	if conn.WriteMessage(websocket.TextMessage, encode(welcome)) != nil {
		conn.Close()
		return
	}
	name := r.URL.Query().Get("name")
	c := &client{hub: h, conn: conn, send: make(chan []byte, h.queue), person: person{"guest-000000000000000000000000", name}}
	go c.writePump()
	go c.readPump()
}

func main() {
	url := flag.String("redis", "", "the Redis that joins the nodes, redis://host:port")
	flag.Parse()
	queue := 256
	var err error
	if flag.NArg() == 2 {
		queue, err = strconv.Atoi(flag.Arg(1))
	}
	if err != nil || queue < 0 || flag.NArg() < 1 || flag.NArg() > 2 {
		log.Fatal("usage: peer-gorilla-hub [-redis URL] ADDRESS [QUEUE]")
	}
	h := &hub{
		clients:    make(map[*client]bool),
		register:   make(chan said),
		unregister: make(chan *client),
		broadcast:  make(chan said),
		queue:      queue,
	}
	go h.run()
	if *url != "" {
		if err := h.join(*url); err != nil {
			log.Fatal(err)
		}
	}
	http.HandleFunc("/ws", h.serve)
	log.Fatal(http.ListenAndServe(flag.Arg(0), nil))
}
