#include "coordinator/ledger_scripts.hpp"

#include <charconv>
#include <map>

#include "coordinator/core/flow/cache.hpp"

namespace tessera::coordinator {
namespace {

const std::string kPrefix = "tessera:";
const std::string kEpochKey = kPrefix + "epoch";
const std::string kJobsKey = kPrefix + "jobs";

const std::string kRecordsKey = kPrefix + "records";

enum Script : int {
  kCreate,
  kSet,
  kAccept,
  kCheck,
  kStore,
  kAck,
  kEnd,
  kForget,
  kTerm,
  kLoad,
  kLead,
  kPutRecord,
  kDropRecord
};

// Digests of so many chunks in a row are a field of job:ID:digests: 496 bytes and Redis' own few
// fit the 512 of its allocator, and no write moves more than those.
constexpr std::uint32_t kDigestsPerField = 31;

// KEYS[1] is the epoch key and ARGV[1] the caller's term, "NUMBER LEDGER SEQUENCE", in every script
// that changes anything. Where the ledger has no term, or an older one of the same ledger, or fewer
// changes than it has answered, it has lost some.
constexpr const char* kFence =
    "local own = redis.call('MGET', KEYS[1], 'tessera:ledger', 'tessera:sequence')\n"
    "local term, ledger, least = string.match(ARGV[1], '^(%d+) (%x*) (%d+)$')\n"
    "if own[1] ~= term or own[2] ~= ledger then\n"
    "  if own[1] and (own[2] ~= ledger or tonumber(own[1]) > tonumber(term)) then\n"
    "    return 'FENCED'\n"
    "  end\n"
    "  return 'WENTBACK'\n"
    "end\n"
    "if tonumber(own[3] or '0') < tonumber(least) then return 'WENTBACK' end\n";

// KEYS[3] is the bitmap of accepted chunks, KEYS[4] the digests; ARGV[2] the chunk, ARGV[3] the
// field of its digest, ARGV[4] the bytes before it there, ARGV[5] the digest. A chunk of a job that
// an earlier version took in has none.
constexpr const char* kCompareDigest =
    "local kept = redis.call('HGET', KEYS[4], ARGV[3]) or ''\n"
    "local at = tonumber(ARGV[4])\n"
    "local known = redis.call('GETBIT', KEYS[3], ARGV[2]) == 1\n"
    "if known then\n"
    "  local old = string.sub(kept, at + 1, at + 16)\n"
    "  if old ~= '' and old ~= string.rep('\\0', 16) and old ~= ARGV[5] then\n"
    "    return redis.error_reply('CONFLICT the chunk has other items')\n"
    "  end\n"
    "end\n";

// A script's own lines say 'OK' when they have changed something, 'SAME' when nothing was to be
// changed, and otherwise what is wrong.
std::string fenced(const std::string& body) {
  return kFence + ("local answer = (function()\n" + body) +
         "\nend)()\n"
         "if answer == 'OK' then return redis.call('INCR', 'tessera:sequence') end\n"
         "if answer == 'SAME' then return tonumber(own[3] or '0') end\n"
         "return answer";
}
std::string with_digest(const std::string& body) { return fenced(kCompareDigest + body); }

std::string job_key(const JobId& job) { return kPrefix + "job:" + job; }
std::string part_key(const JobId& job, const char* part) { return job_key(job) + ":" + part; }
std::string record_key(const std::string& id) { return kPrefix + "record:" + id; }
std::string in_key(const JobId& job, std::uint32_t chunk) {
  return part_key(job, "in:") + std::to_string(chunk);
}
std::string out_key(const JobId& job, std::uint32_t chunk) {
  return part_key(job, "out:") + std::to_string(chunk);
}

RedisCommand make(Script script, std::vector<std::string> keys, std::vector<std::string> args) {
  RedisCommand command{.script = script, .args = {}, .tail = {}};
  command.args.push_back(std::to_string(keys.size()));
  std::ranges::move(keys, std::back_inserter(command.args));
  std::ranges::move(args, std::back_inserter(command.args));
  return command;
}

std::string to_text(const protocol::ChunkDigest& digest) {
  return {reinterpret_cast<const char*>(digest.data()), digest.size()};
}

// A term and the numbers behind it.
template <typename... T>
std::vector<std::string> numbers(const std::string& term, T... values) {
  return {term, std::to_string(values)...};
}

struct ToCommand {
  std::string epoch;  // The whole term, as kFence reads it.

  RedisCommand operator()(ledger::CreateJob& op) const {
    return make(kCreate, {kEpochKey, kJobsKey, job_key(op.job), part_key(op.job, "accepted")},
                {epoch, op.job, op.job_key, op.tenant, op.spec, std::to_string(op.priority)});
  }
  RedisCommand operator()(ledger::AcceptChunk& op) const {
    RedisCommand command = make(kAccept,
                                {kEpochKey, job_key(op.job), part_key(op.job, "accepted"),
                                 part_key(op.job, "digests"), in_key(op.job, op.chunk)},
                                with_digest_place(op.chunk, op.digest));
    command.args.push_back(std::to_string(op.items));
    command.tail = std::move(op.content);
    command.has_tail = true;
    return command;
  }
  RedisCommand operator()(ledger::CheckChunk& op) const {
    return make(
        kCheck,
        {kEpochKey, job_key(op.job), part_key(op.job, "accepted"), part_key(op.job, "digests")},
        with_digest_place(op.chunk, op.digest));
  }
  RedisCommand operator()(ledger::StoreResult& op) const {
    RedisCommand command = make(kStore,
                                {kEpochKey, job_key(op.job), part_key(op.job, "done"),
                                 in_key(op.job, op.chunk), out_key(op.job, op.chunk)},
                                numbers(epoch, op.chunk, op.items, op.items_failed, op.tokens,
                                        op.cache_hits, op.cache_joins, op.cache_misses));
    command.args.push_back(std::move(op.fingerprint));
    command.tail = std::move(op.content);
    command.has_tail = true;
    return command;
  }
  RedisCommand operator()(ledger::AckResult& op) const {
    return make(kAck, {kEpochKey, part_key(op.job, "delivered"), out_key(op.job, op.chunk)},
                numbers(epoch, op.chunk));
  }
  RedisCommand operator()(ledger::CloseJob& op) const {
    return make(kSet, {kEpochKey, job_key(op.job)},
                {epoch, "closed", "1", "chunks_total", std::to_string(op.chunks)});
  }
  RedisCommand operator()(ledger::EndJob& op) const {
    std::vector<std::string> keys = {kEpochKey, job_key(op.job)};
    for (const std::uint32_t chunk : op.chunks) {
      keys.push_back(in_key(op.job, chunk));
      keys.push_back(out_key(op.job, chunk));
    }
    return make(kEnd, std::move(keys), numbers(epoch, static_cast<int>(op.state)));
  }
  RedisCommand operator()(ledger::ForgetJob& op) const {
    return make(
        kForget,
        {kEpochKey, kJobsKey, job_key(op.job), part_key(op.job, "accepted"),
         part_key(op.job, "done"), part_key(op.job, "delivered"), part_key(op.job, "digests")},
        {epoch, op.job});
  }
  RedisCommand operator()(ledger::FetchChunk& op) const {
    return {.script = -1, .args = {"GET", in_key(op.job, op.chunk)}, .tail = {}};
  }
  RedisCommand operator()(ledger::FetchResult& op) const {
    return {.script = -1, .args = {"GET", out_key(op.job, op.chunk)}, .tail = {}};
  }
  RedisCommand operator()(ledger::PutRecord& op) const {
    RedisCommand command = make(
        kPutRecord, {kEpochKey, kRecordsKey, record_key(op.id)},
        {epoch, op.id, std::to_string(op.version - 1), std::to_string(op.version), op.tenant,
         std::to_string(op.order), op.open ? "1" : "0", op.owner, std::to_string(op.lease_ms)});
    command.tail = std::move(op.content);
    command.has_tail = true;
    return command;
  }
  RedisCommand operator()(ledger::DropRecord& op) const {
    return make(kDropRecord, {kEpochKey, kRecordsKey, record_key(op.id)},
                {epoch, op.id, std::to_string(op.version - 1)});
  }
  RedisCommand operator()(ledger::CheckTerm&) const { return make(kTerm, {kEpochKey}, {epoch}); }

  std::vector<std::string> with_digest_place(std::uint32_t chunk,
                                             const protocol::ChunkDigest& digest) const {
    std::vector<std::string> args =
        numbers(epoch, chunk, chunk / kDigestsPerField, chunk % kDigestsPerField * digest.size());
    args.push_back(to_text(digest));
    return args;
  }
};

protocol::Bytes to_bytes(const std::string& text) {
  const auto* data = reinterpret_cast<const std::byte*>(text.data());
  return {data, data + text.size()};
}

// A hash's answer to HGETALL: names and values by turns.
class HashFields {
 public:
  explicit HashFields(const RedisValue& value) {
    for (std::size_t i = 0; i + 1 < value.items.size(); i += 2) {
      fields_[value.items[i].text] = value.items[i + 1].text;
    }
  }
  bool contains(const char* name) const { return fields_.contains(name); }
  const std::string& operator[](const char* name) { return fields_[name]; }
  std::uint64_t number(const char* name) {
    std::uint64_t result = 0;
    const std::string& text = fields_[name];
    std::from_chars(text.data(), text.data() + text.size(), result);
    return result;
  }

 private:
  std::map<std::string, std::string> fields_;
};

std::string cache_key(const CacheKey& key) {
  std::string name = kPrefix + "c:";
  name.append(reinterpret_cast<const char*>(key.data()), key.size());
  return name;
}

// The scripts in the order of their indices.
std::vector<std::string> job_scripts() {
  return {
      // kCreate
      fenced("if redis.call('EXISTS', KEYS[3]) == 0 then\n"
             "  redis.call('HSET', KEYS[3], 'key', ARGV[3], 'tenant', ARGV[4], 'spec', ARGV[5],\n"
             "             'priority', ARGV[6], 'state', 0)\n"
             "  redis.call('SADD', KEYS[2], ARGV[2])\n"
             "  return 'OK'\n"
             "elseif redis.call('HGET', KEYS[3], 'spec') ~= ARGV[5]\n"
             "    or redis.call('EXISTS', KEYS[4]) == 1 then\n"
             "  return redis.error_reply('CONFLICT the ledger has another job of this id')\n"
             "end\n"
             "return 'SAME'"),
      // kSet
      fenced("redis.call('HSET', KEYS[2], unpack(ARGV, 2))\n"
             "return 'OK'"),
      // kAccept
      with_digest("if known then return 'SAME' end\n"
                  "redis.call('SETBIT', KEYS[3], ARGV[2], 1)\n"
                  "redis.call('SET', KEYS[5], ARGV[7])\n"
                  "kept = kept .. string.rep('\\0', at - #kept)\n"
                  "redis.call('HSET', KEYS[4], ARGV[3],\n"
                  "           string.sub(kept, 1, at) .. ARGV[5] .. string.sub(kept, at + 17))\n"
                  "redis.call('HINCRBY', KEYS[2], 'items_accepted', ARGV[6])\n"
                  "redis.call('HSET', KEYS[2], 'state', 1)\n"
                  "return 'OK'"),
      // kCheck
      with_digest("return known and 'SAME' or 'MISSING'"),
      // kStore, kAck and kEnd: what frees memory comes first. A full server refuses a script at a
      // first command that may need some; one that has changed something is run to its end. So what
      // has been accepted always ends, and the room that results take beyond the server's bound is
      // what JobLimits::owed_bytes_max says.
      fenced("if redis.call('GETBIT', KEYS[3], ARGV[2]) == 1 then return 'SAME' end\n"
             "redis.call('DEL', KEYS[4])\n"
             "redis.call('SETBIT', KEYS[3], ARGV[2], 1)\n"
             "redis.call('SET', KEYS[5], ARGV[10])\n"
             "redis.call('HSET', KEYS[2], 'fingerprint', ARGV[9])\n"
             "local names = {'items_done', 'items_failed', 'tokens_done', 'cache_hits',\n"
             "               'cache_joins', 'cache_misses'}\n"
             "for i = 1, 6 do redis.call('HINCRBY', KEYS[2], names[i], ARGV[i + 2]) end\n"
             "return 'OK'"),
      // kAck
      fenced("redis.call('DEL', KEYS[3])\n"
             "redis.call('SETBIT', KEYS[2], ARGV[2], 1)\n"
             "return 'OK'"),
      // kEnd
      fenced("for i = 3, #KEYS do redis.call('DEL', KEYS[i]) end\n"
             "redis.call('HSET', KEYS[2], 'state', ARGV[2])\n"
             "return 'OK'"),
      // kForget
      fenced("redis.call('SREM', KEYS[2], ARGV[2])\n"
             "redis.call('DEL', KEYS[3], KEYS[4], KEYS[5], KEYS[6])\n"
             "redis.call('UNLINK', KEYS[7])\n"
             "return 'OK'")};
}

std::vector<std::string> term_scripts() {
  return {
      // kTerm
      fenced("return 'SAME'"),
      // kLoad
      "return {redis.call('HGETALL', KEYS[1]), redis.call('GET', KEYS[2]),\n"
      "        redis.call('GET', KEYS[3]), redis.call('GET', KEYS[4])}",
      // kLead. Nothing is there to be deleted; see kStore. A caller that has led until now does not
      // take the lead from another.
      "redis.call('DEL', KEYS[2])\n"
      "local before, ledger = unpack(redis.call('MGET', KEYS[1], 'tessera:ledger'))\n"
      "if ARGV[4] ~= '0' and before and\n"
      "    (ledger ~= ARGV[3] or tonumber(before) > tonumber(ARGV[4])) then\n"
      "  return 'FENCED'\n"
      "end\n"
      "local is_new = not before and not ledger\n"
      "if not ledger then\n"
      "  ledger = ARGV[1]\n"
      "  redis.call('SET', 'tessera:ledger', ledger)\n"
      "end\n"
      "local term = math.max(tonumber(before or '0') + 1, tonumber(ARGV[2]))\n"
      "redis.call('SET', KEYS[1], string.format('%.0f', term))\n"
      "return {ledger, string.format('%.0f', term), before or '0', is_new and 1 or 0,\n"
      "        redis.call('INCR', 'tessera:sequence')}"};
}

std::vector<std::string> record_scripts() {
  return {// kPutRecord. One that is there is changed on a full server, too; see kStore.
          fenced("local version = redis.call('HGET', KEYS[3], 'version')\n"
                 "if version == ARGV[4] then return 'SAME' end\n"
                 "if (version or '0') ~= ARGV[3] then\n"
                 "  return redis.error_reply('CONFLICT the record has another version')\n"
                 "end\n"
                 "if version then redis.call('HDEL', KEYS[3], 'content') end\n"
                 "redis.call('HSET', KEYS[3], 'version', ARGV[4], 'tenant', ARGV[5],\n"
                 "           'order', ARGV[6], 'open', ARGV[7], 'owner', ARGV[8],\n"
                 "           'lease_ms', ARGV[9], 'content', ARGV[10])\n"
                 "redis.call('SADD', KEYS[2], ARGV[2])\n"
                 "return 'OK'"),
          // kDropRecord
          fenced("local version = redis.call('HGET', KEYS[3], 'version')\n"
                 "if version and version ~= ARGV[3] then\n"
                 "  return redis.error_reply('CONFLICT the record has another version')\n"
                 "end\n"
                 "redis.call('DEL', KEYS[3])\n"
                 "redis.call('SREM', KEYS[2], ARGV[2])\n"
                 "return 'OK'")};
}

}  // namespace

const std::vector<std::string>& ledger_scripts() {
  static const std::vector<std::string> scripts = [] {
    std::vector<std::string> all;
    for (auto part : {job_scripts(), term_scripts(), record_scripts()}) {
      all.insert(all.end(), part.begin(), part.end());
    }
    return all;
  }();
  return scripts;
}

RedisCommand to_command(ledger::Operation operation, const ledger::Term& term) {
  return std::visit(ToCommand{std::to_string(term.number) + " " + term.ledger_id + " " +
                              std::to_string(term.sequence)},
                    operation);
}

ledger::Reply to_reply(RedisValue value) {
  if (value.kind == RedisValue::Kind::kError && value.text.starts_with("CONFLICT")) {
    return {.status = ledger::Status::kConflict, .message = std::move(value.text), .content = {}};
  }
  if (value.kind == RedisValue::Kind::kError) {
    return {.status = ledger::Status::kFailed, .message = std::move(value.text), .content = {}};
  }
  if (value.kind == RedisValue::Kind::kString && value.text == "FENCED") {
    return {.status = ledger::Status::kFenced, .message = {}, .content = {}};
  }
  if (value.kind == RedisValue::Kind::kString && value.text == "WENTBACK") {
    return {.status = ledger::Status::kWentBack, .message = {}, .content = {}};
  }
  if (value.kind == RedisValue::Kind::kInteger) {
    return {.status = ledger::Status::kDone,
            .message = {},
            .content = {},
            .sequence = static_cast<std::uint64_t>(value.integer)};
  }
  if (value.kind == RedisValue::Kind::kString && value.text == "MISSING") {
    return {.status = ledger::Status::kMissing, .message = {}, .content = {}};
  }
  return {.status = ledger::Status::kDone, .message = {}, .content = to_bytes(value.text)};
}

RedisCommand server_info_command() { return {.script = -1, .args = {"INFO"}, .tail = {}}; }

RedisCommand lead_command(const LeadRequest& request) {
  return make(kLead, {kEpochKey, kPrefix + "nothing"},
              {request.fresh_id, std::to_string(request.at_least), request.former_id,
               std::to_string(request.former_term)});
}

Result<Lead> to_lead(const RedisValue& value) {
  if (value.kind == RedisValue::Kind::kString) {
    return Error{ErrorCode::kConflict, "another coordinator has taken over this ledger"};
  }
  if (value.kind != RedisValue::Kind::kArray || value.items.size() != 5) {
    return Error{ErrorCode::kInternal, "the ledger's term has another form"};
  }
  const auto number = [&](std::size_t index) {
    const std::string& text = value.items[index].text;
    std::uint64_t result = 0;
    std::from_chars(text.data(), text.data() + text.size(), result);
    return result;
  };
  return Lead{.term = {.ledger_id = value.items[0].text,
                       .number = number(1),
                       .sequence = static_cast<std::uint64_t>(value.items[4].integer)},
              .term_before = number(2),
              .is_new = value.items[3].integer != 0};
}

RedisCommand list_jobs_command() {
  return {.script = -1, .args = {"SMEMBERS", kJobsKey}, .tail = {}};
}

RedisCommand load_job_command(const JobId& job) {
  return make(
      kLoad,
      {job_key(job), part_key(job, "accepted"), part_key(job, "done"), part_key(job, "delivered")},
      {});
}

Result<ledger::StoredJob> to_stored_job(const JobId& job, const RedisValue& value) {
  if (value.kind != RedisValue::Kind::kArray || value.items.size() != 4) {
    return Error{ErrorCode::kInternal, "the ledger's entry of job " + job + " has another form"};
  }
  HashFields fields(value.items[0]);
  if (!fields.contains("spec")) {
    return Error{ErrorCode::kInternal, "the ledger has no specification of job " + job};
  }
  const auto number = [&](const char* name) { return fields.number(name); };
  const std::uint64_t state = number("state");
  if (state > static_cast<std::uint64_t>(protocol::JobState::kCancelled)) {
    return Error{ErrorCode::kInternal, "job " + job + " is in no known state"};
  }
  return ledger::StoredJob{
      .job = job,
      .job_key = fields["key"],
      .tenant = fields["tenant"],
      .spec = fields["spec"],
      .fingerprint = fields["fingerprint"],
      .priority = static_cast<std::uint32_t>(std::max<std::uint64_t>(1, number("priority"))),
      .state = static_cast<protocol::JobState>(state),
      .closed = number("closed") != 0,
      .chunks_total = static_cast<std::uint32_t>(number("chunks_total")),
      .items_accepted = number("items_accepted"),
      .items_done = number("items_done"),
      .items_failed = number("items_failed"),
      .tokens_done = number("tokens_done"),
      .cache_hits = number("cache_hits"),
      .cache_joins = number("cache_joins"),
      .cache_misses = number("cache_misses"),
      .accepted = to_bytes(value.items[1].text),
      .done = to_bytes(value.items[2].text),
      .delivered = to_bytes(value.items[3].text)};
}

RedisCommand list_records_command() {
  return {.script = -1, .args = {"SMEMBERS", kRecordsKey}, .tail = {}};
}

RedisCommand load_record_command(const std::string& id) {
  return {.script = -1, .args = {"HGETALL", record_key(id)}, .tail = {}};
}

Result<ledger::StoredRecord> to_stored_record(const std::string& id, const RedisValue& value) {
  HashFields fields(value);
  if (fields.number("version") == 0) {
    return Error{ErrorCode::kInternal, "the ledger has no version of record " + id};
  }
  return ledger::StoredRecord{.id = id,
                              .tenant = fields["tenant"],
                              .version = fields.number("version"),
                              .order = fields.number("order"),
                              .open = fields.number("open") != 0,
                              .owner = fields["owner"],
                              .lease_ms = static_cast<std::uint32_t>(fields.number("lease_ms")),
                              .content = to_bytes(fields["content"])};
}

RedisCommand cache_get_command(const std::vector<CacheKey>& keys) {
  RedisCommand command{.script = -1, .args = {"MGET"}, .tail = {}};
  for (const CacheKey& key : keys) {
    command.args.push_back(cache_key(key));
  }
  return command;
}

RedisCommand cache_put_command(const CacheKey& key, const Embedding& embedding,
                               std::int64_t ttl_ms) {
  const std::vector<std::byte> value = encode_cache_value(key, embedding);
  return {.script = -1,
          .args = {"SET", cache_key(key),
                   std::string(reinterpret_cast<const char*>(value.data()), value.size()), "PX",
                   std::to_string(ttl_ms)},
          .tail = {}};
}

}  // namespace tessera::coordinator
