#include "coordinator/core/jobs/ledger_calls.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace tessera::coordinator {
namespace {

ledger::Operation write_of(std::size_t bytes) {
  return ledger::AcceptChunk{.job = "j", .content = protocol::Bytes(bytes)};
}

ledger::Reply done() { return {.status = ledger::Status::kDone}; }

TEST(LedgerCalls, EachAnswerGoesToItsOwnCallOnce) {
  LedgerCalls calls({});
  Actions actions;
  std::vector<std::string> heard;
  const auto hear = [&](const char* name) {
    return [&heard, name](const ledger::Reply&, Micros, Actions&) { heard.emplace_back(name); };
  };
  calls.run(ledger::CloseJob{.job = "a"}, hear("a"), actions);
  calls.run(ledger::CloseJob{.job = "b"}, hear("b"), actions);
  ASSERT_EQ(actions.size(), 2U);
  const auto first = std::get<RunLedger>(actions[0]).id;
  const auto second = std::get<RunLedger>(actions[1]).id;
  EXPECT_EQ(calls.under_way(), 2U);

  calls.on_reply({second, done()}, 0, actions);
  calls.on_reply({second, done()}, 0, actions);
  calls.on_reply({second + 100, done()}, 0, actions);
  EXPECT_EQ(heard, std::vector<std::string>{"b"});
  calls.on_reply({first, done()}, 0, actions);
  EXPECT_EQ(heard, (std::vector<std::string>{"b", "a"}));
  EXPECT_EQ(calls.under_way(), 0U);
}

TEST(LedgerCalls, AContinuationMayCallAgain) {
  LedgerCalls calls({});
  Actions actions;
  int ends = 0;
  calls.run(
      ledger::CloseJob{.job = "a"},
      [&](const ledger::Reply&, Micros, Actions& out) {
        calls.run(
            ledger::CloseJob{.job = "b"}, [&](const ledger::Reply&, Micros, Actions&) { ++ends; },
            out);
      },
      actions);
  calls.on_reply({std::get<RunLedger>(actions[0]).id, done()}, 0, actions);
  ASSERT_EQ(actions.size(), 2U);
  calls.on_reply({std::get<RunLedger>(actions[1]).id, done()}, 0, actions);
  EXPECT_EQ(ends, 1);
}

TEST(LedgerCalls, IsBusyByNumberAndByBytesUntilTheyAreAnswered) {
  const auto nothing = [](const ledger::Reply&, Micros, Actions&) {};
  LedgerCalls calls({.operations_max = 2, .bytes_max = 100});
  Actions actions;
  calls.run(write_of(99), nothing, actions);
  EXPECT_FALSE(calls.busy());
  calls.run(write_of(0), nothing, actions);
  EXPECT_TRUE(calls.busy()) << "two operations";
  calls.on_reply({std::get<RunLedger>(actions[1]).id, done()}, 0, actions);
  EXPECT_FALSE(calls.busy());
  calls.on_reply({std::get<RunLedger>(actions[0]).id, done()}, 0, actions);
  calls.run(write_of(100), nothing, actions);
  EXPECT_TRUE(calls.busy()) << "a hundred bytes";
  calls.on_reply({std::get<RunLedger>(actions[2]).id, {.status = ledger::Status::kFailed}}, 0,
                 actions);
  EXPECT_FALSE(calls.busy()) << "a refusal is an answer, too";
}

}  // namespace
}  // namespace tessera::coordinator
