//===- ParserTest.cpp - What the PTX front refuses, and with which line ---===//
#include "tests/Api.h"

namespace dshard::emulator {
namespace {

class Parser : public EmulatorTest {
protected:
  /// The error of loading `ptx`, empty if it loads.
  std::string loading(const std::string &ptx, int expected = cuInvalidPtx) {
    char log[512] = {};
    int options[] = {5, 6};
    void *values[] = {log, reinterpret_cast<void *>(sizeof(log))};
    void *module = nullptr;
    EXPECT_EQ(cuModuleLoadDataEx(&module, ptx.c_str(), 2, options, values),
              expected);
    return log;
  }
};

TEST_F(Parser, loadsWhatNvccEmits) { EXPECT_EQ(loading(samples(), 0), ""); }

TEST_F(Parser, refusesAnUnknownInstructionWithItsLine) {
  std::string error = loading(small("frobnicate.b32 %r1, %r2;"));
  EXPECT_EQ(error, "ptx line 15: instruction 'frobnicate.b32' is not known to "
                   "the emulator");
}
TEST_F(Parser, refusesAnUnknownModifier) {
  EXPECT_NE(loading(small("add.odd.s32 %r1, %r2, %r3;"))
                .find("modifier '.odd' is not known"),
            std::string::npos);
}
TEST_F(Parser, refusesARegisterOfAnotherWidth) {
  EXPECT_NE(loading(small("add.s32 %r1, %d2, %r3;"))
                .find("register '%d2' has 64 bits, the instruction 32"),
            std::string::npos);
}
TEST_F(Parser, refusesAnUnknownRegisterAndLabel) {
  EXPECT_NE(loading(small("add.s32 %r1, %q2, %r3;")).find("unknown name '%q2'"),
            std::string::npos);
  EXPECT_NE(loading(small("bra NOWHERE;")).find("label 'NOWHERE' is missing"),
            std::string::npos);
}
TEST_F(Parser, refusesCalls) {
  EXPECT_NE(loading(small("call.uni helper;")).find("'call.uni'"),
            std::string::npos);
}
TEST_F(Parser, refusesDynamicSharedMemoryThatIsOneStaticByte) {
  EXPECT_NE(loading(small(".shared .align 16 .b8 __dynamic_shmem__0;"))
                .find("one static byte"),
            std::string::npos);
}
TEST_F(Parser, refusesANewerTargetAndMachineCode) {
  EXPECT_NE(loading(replaced(small(""), "sm_80", "sm_100"), cuNoBinaryForGpu)
                .find("sm_100"),
            std::string::npos);
  EXPECT_NE(loading("\177ELF...", cuNoBinaryForGpu).find("machine code"),
            std::string::npos);
}
TEST_F(Parser, refusesATruncatedText) {
  std::string text = samples();
  for (size_t part = 1; part < 8; ++part) {
    size_t cut = text.size() * part / 8;
    char log[512] = {};
    int options[] = {5, 6};
    void *values[] = {log, reinterpret_cast<void *>(sizeof(log))};
    void *module = nullptr;
    int result = cuModuleLoadDataEx(&module, text.substr(0, cut).c_str(), 2,
                                    options, values);
    // A cut between two kernels leaves a module, anything else is refused.
    if (result) {
      EXPECT_NE(std::string(log).find("ptx line"), std::string::npos);
    }
  }
}

} // namespace
} // namespace dshard::emulator
