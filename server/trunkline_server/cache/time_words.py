"""Words of questions whose answer is another one soon, in the languages that most people write.

A word too many costs an answer that could have been given again; one too few, an answer that is no longer true.
"""

import re
from typing import Final


def _phrases(text: str) -> str:
    return "|".join(phrase.strip() for phrase in text.split(",") if phrase.strip())


# As expressions. They stand between blanks and marks.
_SPACED: Final = _phrases(
    r"""
    today, today's, tonight, tomorrow, yesterday, now, nowadays, current, currently, latest, newest, recent, recently,
    upcoming, news, weather, forecast, at the moment, at present, up to date, as of, so far, what time, what date,
    what day, (?:this|last|next) (?:minute|hour|morning|evening|week|weekend|month|quarter|year|season),
    (?:stock|share|exchange|bitcoin|crypto|gas|oil|gold) (?:price|prices|rate|rates),

    heute, heutige[rns]?, gestern, morgen, jetzt, aktuell, aktuelle[rnms]?, derzeit, momentan, gerade, neueste[rnms]?,
    kürzlich, wetter, nachrichten, wie spät, uhrzeit, (?:diese|letzte|nächste)[rnms]? (?:woche|monat|jahr)(?:e?s)?,

    aujourd.hui, hier, demain, maintenant, actuel(?:le)?s?, actuellement, en ce moment, récente?s?,
    récemment, dernières nouvelles, météo, quelle heure, cette semaine, cette année, ce mois,

    hoy, ayer, mañana, ahora, actual(?:es)?, actualmente, recientes?, últimas noticias, noticias, qué hora, este año,
    este mes, esta semana, tiempo hace, clima,
    hoje, ontem, amanhã, agora, atual, atuais, atualmente, recentes?, notícias, que horas, este ano, este mês,

    oggi, ieri, domani, adesso, attual[ei], attualmente, recenti, notizie, che ore, quest'anno, questa settimana,
    questo mese,
    vandaag, gisteren, nu, momenteel, huidige, laatste nieuws, nieuws, hoe laat, deze week, deze maand, dit jaar,

    dzisiaj, dziś, wczoraj, jutro, teraz, obecnie, aktualn[yae],
    bugün, dün, yar.n, şimdi, şu an, şu anda, güncel, haberler,
    hari ini, kemarin, besok, sekarang, saat ini, terbaru, berita,
    hôm nay, hôm qua, ngày mai, bây giờ, hiện tại, hiện nay, mới nhất, tin tức,

    сегодня, вчера, завтра, сейчас, теперь, текущ\w+, новости, погода, который час,
    сьогодні, вчора, зараз, новини,

    اليوم, أمس, غدا, الآن, حاليا, أحدث, أخبار
    """
)
# Written without blanks, or with signs that no boundary is seen at: found anywhere.
_UNSPACED: Final = _phrases(
    r"""
    今天, 今日, 昨天, 昨日, 明天, 明日, 现在, 現在, 目前, 当前, 當前, 最新, 最近, 新闻, 新聞, 天气, 天気, 几点,
    何時, ニュース, 今週, 今月, 今年, 去年, 本周,
    오늘, 어제, 내일, 지금, 현재, 최신, 최근, 뉴스, 날씨,
    वर्तमान, समाचार, अभी, आज,
    วันนี้, เมื่อวาน, พรุ่งนี้, ตอนนี้, ปัจจุบัน, ล่าสุด, ข่าว
    """
)

SOON_OLD: Final = re.compile(rf"\b(?:{_SPACED})(?!\w)|{_UNSPACED}", re.IGNORECASE)
