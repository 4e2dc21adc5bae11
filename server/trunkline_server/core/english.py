"""Words of English by what they do in a sentence, for those that compare what is said."""

from typing import Final


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# They hold a sentence together, and say little by themselves.
FUNCTION: Final = _words(
    """
    a about above actually again all also although always am among an and another any are around as at be
    because been before behind being below between both but by can could did do does doing done due during each
    either else ever every few for from generally had has have having he hence her here hers him his how however
    i if in indeed into is it its itself just let like likewise many may me might more moreover most much must
    my near of often on once only onto or other our ours out over own per perhaps please quite really shall she
    should since so some sometimes still such than that the their theirs them then there therefore these they
    this those though through thus to together too toward towards under until up upon us usually very via was we
    well were what when where whereas whether which while who whom whose why will with within would yes yet you
    your yours
    """
)
# As common in other languages of the same letters, and rare in English.
FOREIGN: Final = _words(
    """
    att au auch auf aux bir bu ce che con da dans das dat del della dem den der det di du een ein eine einer el
    em en er es est et für gli het ikke il im inte ist için ja jest la las le les lo los mit na ne nicht nie
    niet non não och og op os para pas por pour på que qui se sich sind się som sono sont su sur um uma un una
    und une van ve von wird zu är å że
    """
)
NEGATIONS: Final = _words(
    """
    barely cannot except excluding hardly instead lack lacking lacks neither never no nobody none nor not
    nothing nowhere rarely scarcely seldom unless without
    """
)
# What stands behind them is what something is measured against, or an alternative to it.
RELATIONS: Final = _words("after before only or rather since than until versus vs")
# Without "one", which is mostly a pronoun.
QUANTITIES: Final = _words(
    """
    billion billions double dozen dozens eight eighteen eighth eighty eleven fifteen fifth fifty first five
    forty four fourteen fourth half halves hundred hundreds last million millions nine nineteen ninety ninth
    pair percent quarter quarters second seven seventeen seventh seventy single six sixteen sixth sixty ten
    tenth third thirds thirteen thirty thousand thousands three thrice trillion triple twelve twenty twice two
    zero
    """
)
OPPOSITES: Final = [
    pair.split("/")
    for pair in _words(
        """
        because/despite because/spite am/pm
        above/below accept/refuse accept/reject active/passive add/remove agree/disagree alive/dead all/many
        all/most all/no all/none all/some allow/deny allow/forbid allow/prevent allowed/forbidden always/never
        always/sometimes always/usually ancestor/descendant ascending/descending before/after begin/end best/worst
        better/worse big/small bigger/smaller black/white both/neither buy/sell cause/prevent cheap/expensive
        cheaper/dearer client/server correct/wrong day/night earlier/later early/late east/west enable/disable
        encode/decode encrypt/decrypt even/odd every/no every/some everyone/nobody everything/nothing fast/slow
        faster/slower first/last for/against friend/enemy front/back full/empty gain/lose give/take good/bad
        greater/less greater/smaller guilty/innocent hard/soft heavier/lighter heavy/light high/low higher/lower
        hot/cold import/export in/out include/exclude increase/decrease increase/reduce input/output insert/delete
        inside/outside internal/external large/small larger/smaller left/right legal/illegal lend/borrow long/short
        longer/shorter love/hate male/female mandatory/optional many/few max/min maximum/minimum more/fewer
        more/less morning/evening most/least multiply/divide must/can must/may must/should near/far
        necessary/optional north/south often/rarely old/new older/newer open/close open/shut over/under
        parallel/serial parent/child pass/fail plus/minus positive/negative possible/impossible present/absent
        public/private push/pull raise/lower required/optional rich/poor right/wrong rise/fall rises/falls rose/fell
        safe/dangerous send/receive start/end start/stop strong/weak stronger/weaker succeed/fail success/failure
        sum/difference support/oppose synchronous/asynchronous top/bottom true/false union/intersection up/down
        upload/download warm/cool warmer/cooler wet/dry win/lose won/lost yes/no
        """
    )
]
