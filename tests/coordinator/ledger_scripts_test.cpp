#include "coordinator/ledger_scripts.hpp"

#include <gtest/gtest.h>
#include <poll.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <thread>

#include "common/check.hpp"
#include "common/log.hpp"
#include "common/range_set.hpp"
#include "coordinator/private_redis.hpp"

namespace tessera::coordinator {
namespace {

using namespace std::chrono_literals;
using ledger::Status;

// The scripts on a real redis-server.
class LedgerScriptsTest : public testing::Test {
 protected:
  void SetUp() override {
    log::set_level(log::Level::kOff);
    std::string name = "/tmp/tessera-ledger-XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    dir = name;
    server = std::make_unique<PrivateRedis>(dir, PrivateRedis::Keeps::kLedger, 64);
    client = std::make_unique<RedisClient>(
        RedisOptions{.address = server->address(), .scripts = ledger_scripts(), .resend = true});
    term = lead().term;
  }
  void TearDown() override {
    client.reset();
    server.reset();
    std::filesystem::remove_all(dir);
  }
  RedisValue call(RedisCommand command) {
    auto answer = client->call(std::move(command), 20s);
    EXPECT_TRUE(answer.ok()) << (answer.ok() ? "" : answer.error().message);
    return answer.ok() ? std::move(answer).value() : RedisValue{};
  }
  // Another term, which this coordinator or another one begins.
  Lead lead(LeadRequest request = {.fresh_id = "abc1"}) {
    auto lead = to_lead(call(lead_command(request)));
    EXPECT_TRUE(lead.ok());
    return lead.ok() ? *lead : Lead{};
  }
  ledger::Reply run(ledger::Operation operation) { return run_as(std::move(operation), term); }
  ledger::Reply run_as(ledger::Operation operation, const ledger::Term& as) {
    auto answer = client->call(to_command(std::move(operation), as), 20s);
    return to_reply(
        answer.ok() ? std::move(answer).value()
                    : RedisValue{.kind = RedisValue::Kind::kError, .text = answer.error().message});
  }
  ledger::StoredJob load() {
    auto job = to_stored_job("id", call(load_job_command("id")));
    EXPECT_TRUE(job.ok());
    return job.ok() ? std::move(job).value() : ledger::StoredJob{};
  }
  // Unlike for unlike numbers.
  static protocol::ChunkDigest digest(std::uint32_t number) {
    protocol::ChunkDigest digest{};
    std::memcpy(digest.data() + 3, &number, sizeof(number));
    return digest;
  }
  static protocol::Bytes bytes(std::string_view text) {
    const auto* data = reinterpret_cast<const std::byte*>(text.data());
    return {data, data + text.size()};
  }

  std::filesystem::path dir;
  std::unique_ptr<PrivateRedis> server;
  std::unique_ptr<RedisClient> client;
  ledger::Term term;
};

const std::string_view kContent("items \0\r\n of a chunk", 20);

TEST_F(LedgerScriptsTest, AJobFromCreationToItsEnd) {
  for (int again = 0; again < 2; ++again) {  // Each operation twice, as after a lost answer.
    EXPECT_EQ(run(ledger::CreateJob{"id", "key", "tenant", "spec", 4}).status, Status::kDone);
  }
  EXPECT_EQ(call(list_jobs_command()).items.at(0).text, "id");
  for (int again = 0; again < 2; ++again) {
    run(ledger::AcceptChunk{"id", 9, 3, digest(1), bytes(again == 0 ? kContent : "another")});
  }
  EXPECT_EQ(run(ledger::FetchChunk{"id", 9}).content, bytes(kContent));
  EXPECT_EQ(load().items_accepted, 3U);
  for (int again = 0; again < 2; ++again) {
    run(ledger::StoreResult{"id", 9, 3, 1, 50, 1, 1, 1, again == 0 ? "finger" : "another",
                            bytes(again == 0 ? "result" : "late")});
  }
  EXPECT_EQ(run(ledger::FetchResult{"id", 9}).content, bytes("result")) << "the first stays";
  EXPECT_TRUE(run(ledger::FetchChunk{"id", 9}).content.empty());
  ledger::StoredJob job = load();
  EXPECT_EQ(job.job_key, "key");
  EXPECT_EQ(job.tenant, "tenant");
  EXPECT_EQ(job.spec, "spec");
  EXPECT_EQ(job.fingerprint, "finger");
  EXPECT_EQ(job.priority, 4U);
  EXPECT_EQ(job.state, protocol::JobState::kRunning);
  EXPECT_EQ(job.items_done, 3U);
  EXPECT_EQ(job.items_failed, 1U);
  EXPECT_EQ(job.tokens_done, 50U);
  EXPECT_EQ(job.cache_misses, 1U);
  EXPECT_FALSE(job.closed);
  EXPECT_EQ(RangeSet::from_bitmap(job.accepted).to_values(), std::vector<std::uint32_t>{9});
  run(ledger::CloseJob{"id", 10});
  run(ledger::AckResult{"id", 9});
  EXPECT_TRUE(run(ledger::FetchResult{"id", 9}).content.empty());
  run(ledger::AcceptChunk{"id", 1, 1, digest(2), bytes("x")});
  run(ledger::EndJob{"id", protocol::JobState::kCancelled, {1}});
  EXPECT_TRUE(run(ledger::FetchChunk{"id", 1}).content.empty());
  job = load();
  EXPECT_TRUE(job.closed);
  EXPECT_EQ(job.chunks_total, 10U);
  EXPECT_EQ(job.state, protocol::JobState::kCancelled);
  EXPECT_EQ(RangeSet::from_bitmap(job.delivered).to_values(), std::vector<std::uint32_t>{9});
  run(ledger::ForgetJob{"id", "key", "tenant"});
  EXPECT_TRUE(call(list_jobs_command()).items.empty());
  EXPECT_EQ(call({.args = {"DBSIZE"}}).integer, 3) << "only the ledger's own are left";
}

TEST_F(LedgerScriptsTest, AJobThatTheLeaderDoesNotKnowIsNotTakenForANewOne) {
  run(ledger::CreateJob{"id", "key", "", "spec", 1});
  EXPECT_EQ(run(ledger::CreateJob{"id", "key", "", "another", 1}).status, Status::kConflict);
  EXPECT_EQ(run(ledger::CreateJob{"id", "key", "", "spec", 1}).status, Status::kDone);
  run(ledger::AcceptChunk{"id", 0, 1, digest(1), bytes("x")});
  EXPECT_EQ(run(ledger::CreateJob{"id", "key", "", "spec", 1}).status, Status::kConflict)
      << "its first chunk would seem to be written down and is not";
}

// In any order, over the borders of the fields, as they come and when all has been delivered.
TEST_F(LedgerScriptsTest, AChunkIsToldFromAnyOtherOfItsNumber) {
  run(ledger::CreateJob{"id", "key", "", "spec", 1});
  const std::uint32_t chunks[] = {40, 0, 30, 31, 29, 61, 62, 1000, 4'194'303, 1};
  for (const std::uint32_t chunk : chunks) {
    EXPECT_EQ(run(ledger::CheckChunk{"id", chunk, digest(chunk + 1)}).status, Status::kMissing);
    EXPECT_EQ(run(ledger::AcceptChunk{"id", chunk, 1, digest(chunk + 1), bytes("x")}).status,
              Status::kDone);
    EXPECT_EQ(run(ledger::AcceptChunk{"id", chunk, 1, digest(7777), bytes("y")}).status,
              Status::kConflict);
    EXPECT_EQ(run(ledger::FetchChunk{"id", chunk}).content, bytes("x"));
  }
  for (const std::uint32_t chunk : chunks) {
    run(ledger::StoreResult{.job = "id", .chunk = chunk, .items = 1, .content = bytes("result")});
    run(ledger::AckResult{"id", chunk});
  }
  run(ledger::EndJob{"id", protocol::JobState::kDone, {}});
  term = lead().term;  // Another coordinator knows as much.
  for (const std::uint32_t chunk : chunks) {
    EXPECT_EQ(run(ledger::CheckChunk{"id", chunk, digest(chunk + 1)}).status, Status::kDone);
    EXPECT_EQ(run(ledger::CheckChunk{"id", chunk, digest(chunk + 2)}).status, Status::kConflict);
  }
  EXPECT_EQ(load().items_accepted, std::size(chunks)) << "none was counted twice";
  run(ledger::ForgetJob{"id", "key", ""});
  EXPECT_EQ(call({.args = {"EXISTS", "tessera:job:id:digests"}}).integer, 0);
}

// What an earlier version has written.
TEST_F(LedgerScriptsTest, AChunkWithoutADigestIsTakenForWhatItIsSaidToBe) {
  run(ledger::CreateJob{"id", "key", "", "spec", 1});
  call({.args = {"SETBIT", "tessera:job:id:accepted", "2", "1"}});
  run(ledger::AcceptChunk{"id", 3, 1, digest(3), bytes("x")});
  for (const std::uint32_t number : {5U, 6U}) {
    EXPECT_EQ(run(ledger::CheckChunk{"id", 2, digest(number)}).status, Status::kDone);
    EXPECT_EQ(run(ledger::AcceptChunk{"id", 2, 1, digest(number), bytes("y")}).status,
              Status::kDone);
  }
  EXPECT_TRUE(run(ledger::FetchChunk{"id", 2}).content.empty());
  EXPECT_EQ(run(ledger::CheckChunk{"id", 3, digest(5)}).status, Status::kConflict);
}

TEST_F(LedgerScriptsTest, DigestsTakeLittleMoreThanTheirBytes) {
  run(ledger::CreateJob{"id", "key", "", "spec", 1});
  constexpr std::uint32_t kChunks = 31 * 100;
  for (std::uint32_t chunk = 0; chunk < kChunks; ++chunk) {
    client->run(to_command(ledger::AcceptChunk{"id", chunk, 1, digest(chunk + 1), {}}, term),
                [](const RedisValue&) {});
  }
  call({.args = {"PING"}});
  const auto bytes_used =
      call({.args = {"MEMORY", "USAGE", "tessera:job:id:digests", "SAMPLES", "0"}}).integer;
  RecordProperty("bytes_a_chunk", std::to_string(static_cast<double>(bytes_used) / kChunks));
  EXPECT_GT(bytes_used, std::int64_t{16} * kChunks);
  EXPECT_LT(bytes_used, std::int64_t{20} * kChunks);
}

TEST_F(LedgerScriptsTest, AFullServerStillForgetsWhatIsDelivered) {
  run(ledger::CreateJob{"id", "key", "", "spec", 1});
  const protocol::Bytes large(200'000, std::byte{7});
  run(ledger::AcceptChunk{"id", 0, 1, digest(1), large});
  run(ledger::StoreResult{.job = "id", .chunk = 0, .items = 1, .content = large});
  run(ledger::AcceptChunk{"id", 1, 1, digest(2), large});
  call({.args = {"CONFIG", "SET", "maxmemory", "1mb"}});
  EXPECT_EQ(run(ledger::AcceptChunk{"id", 2, 1, digest(3), large}).status, Status::kFailed);
  EXPECT_EQ(run(ledger::AcceptChunk{"id", 1, 1, digest(2), large}).status, Status::kDone);
  EXPECT_EQ(run(ledger::CheckChunk{"id", 1, digest(4)}).status, Status::kConflict);
  EXPECT_EQ(run(ledger::AckResult{"id", 0}).status, Status::kDone);
  EXPECT_EQ(run(ledger::EndJob{"id", protocol::JobState::kCancelled, {1}}).status, Status::kDone);
  call({.args = {"CONFIG", "SET", "maxmemory", "0"}});
  const ledger::StoredJob job = load();
  EXPECT_EQ(RangeSet::from_bitmap(job.accepted).to_values(), (std::vector<std::uint32_t>{0, 1}));
  EXPECT_EQ(RangeSet::from_bitmap(job.delivered).to_values(), std::vector<std::uint32_t>{0});
  EXPECT_EQ(job.state, protocol::JobState::kCancelled);
  EXPECT_TRUE(run(ledger::FetchResult{"id", 0}).content.empty());
  EXPECT_TRUE(run(ledger::FetchChunk{"id", 1}).content.empty());
}

TEST_F(LedgerScriptsTest, AFullServerStillTakesResultsInTheirItemsPlace) {
  run(ledger::CreateJob{"id", "key", "", "spec", 1});
  run(ledger::AcceptChunk{"id", 0, 1, digest(1), bytes("items")});
  call({.args = {"CONFIG", "SET", "maxmemory", "1"}});
  const protocol::Bytes large(200'000, std::byte{7});
  EXPECT_EQ(run(ledger::AcceptChunk{"id", 1, 1, digest(2), large}).status, Status::kFailed);
  const ledger::Term before = term;
  term = lead().term;
  EXPECT_EQ(term.number, before.number + 1) << "a coordinator can start on it";
  const ledger::StoreResult store{
      .job = "id", .chunk = 0, .items = 1, .tokens = 5, .fingerprint = "f", .content = large};
  for (int again = 0; again < 2; ++again) {
    EXPECT_EQ(run(store).status, Status::kDone);
  }
  EXPECT_EQ(run(ledger::FetchResult{"id", 0}).content, large);
  EXPECT_TRUE(run(ledger::FetchChunk{"id", 0}).content.empty());
  call({.args = {"CONFIG", "SET", "maxmemory", "0"}});
  const ledger::StoredJob job = load();
  EXPECT_EQ(RangeSet::from_bitmap(job.done).to_values(), std::vector<std::uint32_t>{0});
  EXPECT_EQ(job.items_done, 1U);
  EXPECT_EQ(job.tokens_done, 5U);
  EXPECT_EQ(job.fingerprint, "f");
}

TEST_F(LedgerScriptsTest, ATermKnowsTheOneBeforeAndTheLedgersId) {
  EXPECT_EQ(term.ledger_id, "abc1");
  EXPECT_EQ(term.number, 1U);
  const Lead next = lead({.fresh_id = "def2", .at_least = 50});
  EXPECT_EQ(next.term.ledger_id, "abc1") << "it has one";
  EXPECT_EQ(next.term.number, 50U);
  EXPECT_EQ(next.term_before, 1U);
  EXPECT_FALSE(next.is_new);
  EXPECT_EQ(lead({.fresh_id = "def2", .at_least = 3}).term.number, 51U);
  call({.args = {"FLUSHALL"}});
  const Lead first = lead({.fresh_id = "def2"});
  EXPECT_EQ(first.term.ledger_id, "def2");
  EXPECT_EQ(first.term_before, 0U);
  EXPECT_TRUE(first.is_new);
}

// What an earlier version has left: a term, and neither an id nor a count.
TEST_F(LedgerScriptsTest, AnEarlierVersionsLedgerGetsAnId) {
  call({.args = {"FLUSHALL"}});
  call({.args = {"SET", "tessera:epoch", "7"}});
  const Lead taken = lead({.fresh_id = "def2"});
  EXPECT_EQ(taken.term.number, 8U);
  EXPECT_EQ(taken.term_before, 7U);
  EXPECT_EQ(taken.term.ledger_id, "def2");
  EXPECT_FALSE(taken.is_new);
  term = taken.term;
  EXPECT_EQ(run(ledger::CreateJob{"id", "key", "", "spec", 1}).status, Status::kDone);
  call({.args = {"INCR", "tessera:epoch"}});  // Such a coordinator takes over.
  EXPECT_EQ(run(ledger::CheckTerm{}).status, Status::kFenced);
}

TEST_F(LedgerScriptsTest, ALedgerThatLostSomethingSaysSo) {
  const auto status = [&] { return run(ledger::CheckTerm{}).status; };
  std::uint64_t sequence = term.sequence;
  const auto changes = [&](ledger::Operation operation) {
    const ledger::Reply reply = run(std::move(operation));
    EXPECT_EQ(reply.status, Status::kDone);
    const bool changed = reply.sequence > sequence;
    sequence = std::max(sequence, reply.sequence);
    return changed;
  };
  EXPECT_TRUE(changes(ledger::CreateJob{"id", "key", "", "spec", 1}));
  EXPECT_FALSE(changes(ledger::CreateJob{"id", "key", "", "spec", 1}));
  EXPECT_TRUE(changes(ledger::AcceptChunk{"id", 0, 1, digest(1), bytes("x")}));
  EXPECT_FALSE(changes(ledger::AcceptChunk{"id", 0, 1, digest(1), bytes("x")}));
  EXPECT_FALSE(changes(ledger::CheckChunk{"id", 0, digest(1)}));
  EXPECT_FALSE(changes(ledger::CheckTerm{}));
  term.sequence = sequence;
  EXPECT_EQ(status(), Status::kDone);
  EXPECT_TRUE(changes(ledger::StoreResult{.job = "id", .content = bytes("y")}));
  EXPECT_EQ(status(), Status::kDone) << "it may know more than the caller";
  call({.args = {"SET", "tessera:sequence", std::to_string(sequence - 2)}});
  EXPECT_EQ(status(), Status::kWentBack) << "an older copy";
  EXPECT_EQ(run(ledger::AckResult{"id", 0}).status, Status::kWentBack);
  EXPECT_EQ(run(ledger::FetchResult{"id", 0}).content, bytes("y")) << "nothing was changed";
  call({.args = {"SET", "tessera:sequence", std::to_string(sequence)}});
  EXPECT_EQ(status(), Status::kDone);
  lead();
  const ledger::Term newer = lead().term;
  call({.args = {"SET", "tessera:epoch", "1"}});
  EXPECT_EQ(run_as(ledger::CheckTerm{}, newer).status, Status::kWentBack) << "an older term";
  call({.args = {"DEL", "tessera:epoch"}});
  EXPECT_EQ(run_as(ledger::CheckTerm{}, newer).status, Status::kWentBack);
  call({.args = {"FLUSHALL"}});
  EXPECT_EQ(run_as(ledger::CheckTerm{}, newer).status, Status::kWentBack) << "emptied";
  lead({.fresh_id = "def2", .at_least = newer.number});
  EXPECT_EQ(run_as(ledger::CheckTerm{}, newer).status, Status::kFenced)
      << "another has founded a ledger, whose term has the same number";
}

TEST_F(LedgerScriptsTest, ALeaderBeginsAnewOnlyWhereNoOtherLeads) {
  const auto again = [&](std::uint64_t above) {
    return to_lead(call(lead_command({.fresh_id = "def2",
                                      .at_least = above + 1,
                                      .former_id = term.ledger_id,
                                      .former_term = term.number})));
  };
  const auto next = again(40);
  ASSERT_TRUE(next.ok());
  EXPECT_EQ(next->term.number, 41U);
  EXPECT_FALSE(again(40).ok()) << "term 41 is another's";
  term = next->term;
  call({.args = {"FLUSHALL"}});
  const auto founded = again(41);
  ASSERT_TRUE(founded.ok());
  EXPECT_EQ(founded->term.number, 42U);
  EXPECT_EQ(founded->term.ledger_id, "def2");
  EXPECT_FALSE(again(41).ok()) << "the ledger is another's";
}

TEST_F(LedgerScriptsTest, AnOlderLeaderChangesNothing) {
  run(ledger::CreateJob{"id", "key", "", "spec", 1});
  lead();
  const ledger::Operation operations[] = {
      ledger::CreateJob{"other", "key", "", "spec", 1},
      ledger::AcceptChunk{"id", 0, 1, digest(1), bytes("x")},
      ledger::CheckChunk{"id", 0, digest(1)},
      ledger::StoreResult{.job = "id", .chunk = 0, .content = bytes("x")},
      ledger::AckResult{"id", 0},
      ledger::CloseJob{"id", 1},
      ledger::EndJob{"id", protocol::JobState::kDone, {}},
      ledger::ForgetJob{"id", "key", ""},
      ledger::CheckTerm{}};
  for (const ledger::Operation& operation : operations) {
    EXPECT_EQ(run(operation).status, Status::kFenced) << operation.index();
  }
  const ledger::StoredJob job = load();
  EXPECT_TRUE(job.accepted.empty() && job.done.empty() && job.delivered.empty());
  EXPECT_FALSE(job.closed);
  EXPECT_EQ(job.state, protocol::JobState::kOpen);
}

TEST_F(LedgerScriptsTest, CommandsOutliveTheServer) {
  run(ledger::CreateJob{"id", "key", "", "spec", 1});
  call({.args = {"CONFIG", "SET", "appendfsync", "always"}});
  // The answer of SHUTDOWN is the end of the connection; the next command waits for the next one.
  client->run({.args = {"SHUTDOWN", "NOSAVE"}}, [](const RedisValue&) {});
  EXPECT_FALSE(client->call({.args = {"PING"}}, 300ms).ok());
  client = std::make_unique<RedisClient>(
      RedisOptions{.address = server->address(), .scripts = ledger_scripts(), .resend = true});
  for (int i = 0; i < 100 && !client->ready(); ++i) {
    server->restart_if_ended();
    (void)client->call({.args = {"PING"}}, 50ms);
  }
  EXPECT_EQ(load().job_key, "key");
}

TEST_F(LedgerScriptsTest, CacheValuesExpireAndLedgerKeysDoNot) {
  CacheKey key{};
  key[0] = std::byte{'\n'};
  call(cache_put_command(key, {.tokens = 1, .values = {1, 2}}, 100'000));
  const RedisValue found = call(cache_get_command({key, CacheKey{}}));
  ASSERT_EQ(found.items.size(), 2U);
  EXPECT_EQ(found.items[0].kind, RedisValue::Kind::kString);
  EXPECT_EQ(found.items[1].kind, RedisValue::Kind::kNil);
  EXPECT_GT(call({.args = {"PTTL", std::string("tessera:c:\n") + std::string(31, '\0')}}).integer,
            0);
  run(ledger::CreateJob{"id", "key", "", "spec", 1});
  EXPECT_EQ(call({.args = {"PTTL", "tessera:job:id"}}).integer, -1);
}

// Far more than the socket takes at once, and more than hiredis is given at once.
TEST_F(LedgerScriptsTest, ManyLargeCommandsAreAnsweredInTheirOrder) {
  const std::string large(std::size_t{1} << 20, 'x');
  std::vector<std::int64_t> answers;
  std::vector<std::int64_t> expected;
  for (int i = 0; i < 48; ++i) {
    expected.push_back(static_cast<std::int64_t>(large.size()) - i);
    client->run({.args = {"SETRANGE", "key" + std::to_string(i % 2), "0",
                          large.substr(static_cast<std::size_t>(i))}},
                [&](const RedisValue& answer) { answers.push_back(answer.integer); });
    client->run({.args = {"DEL", "key" + std::to_string(i % 2)}}, [](const RedisValue&) {});
  }
  EXPECT_EQ(client->open_commands(), 96U);
  EXPECT_EQ(call({.args = {"PING"}}).text, "PONG");
  EXPECT_EQ(answers, expected);
  EXPECT_EQ(client->open_commands(), 0U);
}

// The server dies while an answer of it is unread and the next command not yet sent.
TEST_F(LedgerScriptsTest, AWriteToAServerThatHasDiedIsNoSignal) {
  const std::string info = call({.args = {"INFO", "server"}}).text;
  const auto at = info.find("process_id:");
  ASSERT_NE(at, std::string::npos);
  const pid_t pid = std::stoi(info.substr(at + std::string_view("process_id:").size()));
  int answers = 0;
  const auto count = [&answers](const RedisValue&) { ++answers; };
  client->run({.args = {"PING"}}, count);
  auto descriptor = client->descriptor();
  descriptor.writable = true;
  client->handle(descriptor);
  pollfd socket{.fd = descriptor.fd, .events = POLLIN, .revents = 0};
  ASSERT_EQ(poll(&socket, 1, 20'000), 1) << "the first answer";
  client->run({.args = {"PING"}}, count);
  ASSERT_EQ(kill(pid, SIGKILL), 0);
  socket.events = 0;
  ASSERT_EQ(poll(&socket, 1, 20'000), 1) << "the end of the connection";
  descriptor.readable = true;
  client->handle(descriptor);
  EXPECT_EQ(answers, 1);
  EXPECT_FALSE(client->ready());
  std::this_thread::sleep_for(1s);  // The server is started again at most once a second.
  server->restart_if_ended();
  EXPECT_EQ(call({.args = {"PING"}}).text, "PONG");
  EXPECT_EQ(answers, 2) << "a command that was not answered is sent again";
}

TEST_F(LedgerScriptsTest, ARecordFromCreationToItsEnd) {
  const auto put = [&](std::uint64_t version, std::string_view content, std::uint64_t later = 0) {
    return run_as(ledger::PutRecord{.id = "r",
                                    .tenant = "t",
                                    .version = version,
                                    .order = 7,
                                    .open = version < 3,
                                    .owner = "gateway",
                                    .lease_ms = 500,
                                    .content = bytes(content)},
                  {term.ledger_id, term.number - later})
        .status;
  };
  const auto load_record = [&] {
    return to_stored_record("r", call(load_record_command("r"))).value();
  };
  EXPECT_EQ(put(2, "of nothing"), Status::kConflict);
  for (int again = 0; again < 2; ++again) {  // As after a lost answer.
    EXPECT_EQ(put(1, kContent), Status::kDone);
  }
  EXPECT_EQ(put(3, "skips one"), Status::kConflict);
  EXPECT_EQ(put(2, "other", 1), Status::kFenced) << "of the term before";
  EXPECT_EQ(call(list_records_command()).items.at(0).text, "r");
  ledger::StoredRecord record = load_record();
  EXPECT_EQ(record.tenant, "t");
  EXPECT_EQ(record.version, 1U);
  EXPECT_EQ(record.order, 7U);
  EXPECT_TRUE(record.open);
  EXPECT_EQ(record.owner, "gateway");
  EXPECT_EQ(record.lease_ms, 500U);
  EXPECT_EQ(record.content, bytes(kContent));
  EXPECT_EQ(put(2, "second"), Status::kDone);
  EXPECT_EQ(put(3, "third"), Status::kDone);
  EXPECT_EQ(put(2, "second, late"), Status::kConflict);
  record = load_record();
  EXPECT_FALSE(record.open);
  EXPECT_EQ(record.content, bytes("third"));
  EXPECT_EQ(run(ledger::DropRecord{"r", 3}).status, Status::kConflict);
  EXPECT_EQ(run_as(ledger::DropRecord{"r", 4}, {term.ledger_id, term.number - 1}).status,
            Status::kFenced);
  for (int again = 0; again < 2; ++again) {
    EXPECT_EQ(run(ledger::DropRecord{"r", 4}).status, Status::kDone);
  }
  EXPECT_TRUE(call(list_records_command()).items.empty());
  EXPECT_FALSE(to_stored_record("r", call(load_record_command("r"))).ok());
}

TEST_F(LedgerScriptsTest, AFullServerTakesChangesOfRecordsAndNoNewOnes) {
  const auto put = [&](const std::string& id, std::uint64_t version) {
    return run(ledger::PutRecord{.id = id, .version = version, .content = bytes("content")}).status;
  };
  EXPECT_EQ(put("r", 1), Status::kDone);
  call({.script = -1, .args = {"CONFIG", "SET", "maxmemory", "1"}, .tail = {}});
  EXPECT_EQ(put("s", 1), Status::kFailed);
  EXPECT_EQ(put("r", 2), Status::kDone);
  EXPECT_EQ(run(ledger::DropRecord{"r", 3}).status, Status::kDone);
}

}  // namespace
}  // namespace tessera::coordinator
