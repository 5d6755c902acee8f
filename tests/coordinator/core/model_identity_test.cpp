#include "coordinator/core/scheduling/model_identity.hpp"

#include <gtest/gtest.h>

namespace tessera::coordinator {
namespace {

std::string digits(char digit) { return std::string(64, digit); }

// As versions of now say hello: 'N' to 'n'. `former` alone: as versions before did.
protocol::WorkerHello worker(char fingerprint, char former) {
  return {.model = "m", .fingerprint = digits(fingerprint), .former_fingerprint = digits(former)};
}
protocol::WorkerHello former_worker(char former) {
  return {.model = "m", .former_fingerprint = digits(former)};
}

bool joins(ModelIdentity& identity, const protocol::WorkerHello& hello) {
  if (identity.refusal(hello)) {
    return false;
  }
  identity.adopt(hello);
  return true;
}

TEST(ModelIdentity, TheFirstWorkersHolds) {
  ModelIdentity identity;
  EXPECT_EQ(identity.fingerprint(), "");
  EXPECT_TRUE(joins(identity, worker('1', 'a')));
  EXPECT_EQ(identity.fingerprint(), digits('1'));
  EXPECT_EQ(identity.former(), digits('a'));
  EXPECT_TRUE(joins(identity, worker('1', 'a')));
  EXPECT_FALSE(joins(identity, worker('2', 'b')));
  // Retrained where no sample was: the former fingerprint is the same, the model is not.
  EXPECT_FALSE(joins(identity, worker('2', 'a')));
  EXPECT_FALSE(joins(identity, former_worker('b')));
}

TEST(ModelIdentity, AWorkerOfAFormerVersionIsToldToBeRenewed) {
  ModelIdentity identity;
  joins(identity, worker('1', 'a'));
  EXPECT_NE(
      identity.refusal(former_worker('a')).value_or("").find("start a worker of this version"),
      std::string::npos);
  EXPECT_NE(identity.refusal(former_worker('b')).value_or("").find("differs"), std::string::npos);
}

// The coordinator is renewed first, its workers one by one.
TEST(ModelIdentity, WorkersAreRenewedOneByOne) {
  ModelIdentity identity;
  EXPECT_TRUE(joins(identity, former_worker('a')));
  identity.leave_former();  // Nobody knows another yet.
  EXPECT_EQ(identity.fingerprint(), digits('a'));
  EXPECT_EQ(identity.former(), digits('a'));
  EXPECT_FALSE(joins(identity, worker('9', 'b')));
  EXPECT_TRUE(joins(identity, worker('1', 'a')));
  EXPECT_EQ(identity.fingerprint(), digits('a'));  // The other one still computes.
  EXPECT_FALSE(joins(identity, worker('2', 'a')));
  EXPECT_TRUE(joins(identity, former_worker('a')));
  EXPECT_TRUE(identity.continues(digits('a')));
  EXPECT_FALSE(identity.continues(digits('1')));
  identity.leave_former();
  EXPECT_EQ(identity.fingerprint(), digits('1'));
  EXPECT_FALSE(joins(identity, former_worker('a')));
  EXPECT_TRUE(joins(identity, worker('1', 'a')));
}

TEST(ModelIdentity, AJobOfAFormerVersionIsTakenOver) {
  ModelIdentity identity;
  identity.pin(digits('a'));
  identity.pin(digits('1'));  // The first one holds.
  EXPECT_EQ(identity.fingerprint(), digits('a'));
  EXPECT_FALSE(joins(identity, worker('2', 'b')));
  EXPECT_TRUE(joins(identity, worker('1', 'a')));
  identity.leave_former();
  EXPECT_EQ(identity.fingerprint(), digits('1'));
  for (const auto& [job, goes_on] : {std::pair(std::string(), true),
                                     {digits('a'), true},
                                     {digits('1'), true},
                                     {digits('b'), false}}) {
    EXPECT_EQ(identity.continues(job), goes_on) << job;
  }
}

// Where former versions gave other vectors a worker says no former fingerprint.
TEST(ModelIdentity, NothingIsTakenOverWithoutAFormerFingerprint) {
  ModelIdentity identity;
  identity.pin(digits('a'));
  EXPECT_FALSE(joins(identity, {.model = "m", .fingerprint = digits('1')}));
  ModelIdentity fresh;
  EXPECT_TRUE(joins(fresh, {.model = "m", .fingerprint = digits('1')}));
  EXPECT_EQ(fresh.former(), digits('1'));
  EXPECT_FALSE(fresh.continues(digits('a')));
}

}  // namespace
}  // namespace tessera::coordinator
