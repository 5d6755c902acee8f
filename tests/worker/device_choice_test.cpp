#include "worker/split/device_choice.hpp"

#include <gmock/gmock.h>

namespace tessera::worker {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(DeviceChoice, AutoTakesTheLargestGroup) {
  const auto of = [](int gpus) { return choose_devices("all", "auto", gpus).value(); };
  EXPECT_THAT(of(1).devices, ElementsAre(0));
  EXPECT_THAT(of(4).devices, ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(of(4).reason, HasSubstr("one group of 4 of 4 GPUs"));
  EXPECT_THAT(of(7).devices, ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(of(7).reason, HasSubstr("start another"));
  EXPECT_THAT(of(1).reason, HasSubstr("one GPU"));
  EXPECT_EQ(of(16).devices.size(), 8U);
}

TEST(DeviceChoice, ListsAndSizesAreTakenAsGiven) {
  EXPECT_THAT(choose_devices("2,0", "2", 4)->devices, ElementsAre(2, 0));
  EXPECT_THAT(choose_devices("2,0", "2", 4)->reason, IsEmpty());
  EXPECT_THAT(choose_devices("3", "auto", 4)->devices, ElementsAre(3));
  EXPECT_THAT(choose_devices("all", "2", 4)->devices, ElementsAre(0, 1));
}

TEST(DeviceChoice, RefusesInOneSentence) {
  const auto why = [](const char* devices, const char* tp, int gpus) {
    return choose_devices(devices, tp, gpus).error().message;
  };
  EXPECT_THAT(why("all", "auto", 0), HasSubstr("no usable GPU"));
  EXPECT_THAT(why("0,4", "auto", 4), HasSubstr("no GPU 4; this machine has 4"));
  EXPECT_THAT(why("1,1", "2", 4), HasSubstr("GPU 1 twice"));
  EXPECT_THAT(why("0,,1", "2", 4), HasSubstr("takes \"all\" or numbers"));
  EXPECT_THAT(why("0,x", "2", 4), HasSubstr("takes \"all\" or numbers"));
  EXPECT_THAT(why("", "2", 4), HasSubstr("takes \"all\" or numbers"));
  EXPECT_THAT(why("0,1,2", "2", 4), HasSubstr("--tp 2 with 3 devices"));
  EXPECT_THAT(why("all", "3", 4), HasSubstr("1, 2, 4 or 8"));
  EXPECT_THAT(why("all", "8", 4), HasSubstr("has 4 GPUs"));
}

}  // namespace
}  // namespace tessera::worker
